//go:build linux

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/rtnl"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// labFile is a file that the topology determines, the same for all nodes.
type labFile struct {
	path    string // below the lab's data directory
	content string
}

func labFiles(t *topo.Topology) []labFile {
	files := []labFile{
		{"etc/hosts", hosts(t)},
		{"etc/resolv.conf", resolvConf(t.Metadata.Name)},
		{protocolsFile, routeProtocols()},
		{shellFile, shellStart(t.Metadata.Name)},
	}
	if slices.ContainsFunc(t.Nodes.Names(), func(node string) bool { return hasDNS(t, node) }) {
		files = append(files, labFile{"etc-pods/resolv.conf", podsResolvConf(t)})
	}
	return files
}

// ensureFiles writes what differs. The changes name no node; of a new lab's
// files nothing is said.
func ensureFiles(at paths, t *topo.Topology) ([]provision.Change, error) {
	var changes []provision.Change
	for _, f := range labFiles(t) {
		path := filepath.Join(at.data, f.path)
		if err := makeDir(filepath.Dir(path), 0o755); err != nil {
			return changes, err
		}
		created, changed, err := ensureFile(path, []byte(f.content), 0o644)
		if err != nil {
			return changes, fmt.Errorf("write %s: %w", path, err)
		}
		if changed && !created {
			changes = append(changes, provision.Change{Verb: provision.Changed, Object: filepath.Base(f.path)})
		}
	}
	if exists(at.etcPods()) {
		if _, err := ensureSymlink("../etc/hosts", filepath.Join(at.etcPods(), "hosts")); err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// ensureFile is putFile for what nobody reads before it is whole: a new file is
// written in place, which takes half the time. One that was cut short differs
// at the next call.
func ensureFile(path string, content []byte, mode fs.FileMode) (created, changed bool, err error) {
	err = writeFile(path, content, mode)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err == nil, err
	}
	changed, err = putFile(path, content, mode)
	return false, changed, err
}

// putFile writes a file atomically, where its content or mode differs.
func putFile(path string, content []byte, mode fs.FileMode) (changed bool, err error) {
	if same(path, content, mode) {
		return false, nil
	}
	temporary := path + ".new"
	// A leftover of a run that was cut short may have any mode, or be a link.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := writeFile(temporary, content, mode); err != nil {
		return false, errors.Join(err, os.Remove(temporary))
	}
	return true, os.Rename(temporary, path)
}

func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode.Perm())
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	// The umask has no say.
	return errors.Join(err, f.Chmod(mode.Perm()), f.Close())
}

// same compares with what is there.
func same(path string, content []byte, mode fs.FileMode) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != mode.Perm() || info.Size() != int64(len(content)) {
		return false
	}
	now, err := os.ReadFile(path)
	return err == nil && bytes.Equal(now, content)
}

func mark(lab string) string { return "# Made by labctl for lab " + lab + ".\n" }

// hosts has every node of the lab at its address on its first network.
func hosts(t *topo.Topology) string {
	var b strings.Builder
	b.WriteString(mark(t.Metadata.Name))
	b.WriteString("127.0.0.1 localhost\n")
	for name, node := range t.Nodes.All() {
		if a, ok := nodeAddress(node); ok {
			fmt.Fprintf(&b, "%s %s\n", a, name)
		}
	}
	return b.String()
}

func nodeAddress(node topo.Node) (netip.Addr, bool) {
	if _, iface, ok := node.Primary(); ok {
		return iface.Address.Addr(), true
	}
	for _, iface := range node.Interfaces.All() {
		return iface.Address.Addr(), true
	}
	return netip.Addr{}, false
}

// resolvConf names the uplink's DNS proxy, as on a VM. It never answers here,
// so the resolver should give up soon.
func resolvConf(lab string) string {
	return mark(lab) + "nameserver " + topo.NATUplink().DNS.String() + "\noptions timeout:1 attempts:1\n"
}

// dnsNumber is the place of the name server in the service CIDR, as kubeadm has it.
const dnsNumber = 10

// podsResolvConf names the cluster's name server, for nodes with pods.
func podsResolvConf(t *topo.Topology) string {
	server := t.Cluster.ServiceCIDR.Masked().Addr()
	for range dnsNumber {
		server = server.Next()
	}
	return mark(t.Metadata.Name) + "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver " +
		server.String() + "\noptions ndots:5 timeout:1 attempts:1\n"
}

// hasDNS says whether the node has the cluster's name server.
func hasDNS(t *topo.Topology, node string) bool {
	n, _ := t.Nodes.Get(node)
	return n.PodCIDR.IsValid() && t.Cluster.ServiceCIDR.IsValid()
}

// etcOf is what goes over /etc on the node.
func etcOf(at paths, t *topo.Topology, node string) string {
	if hasDNS(t, node) {
		return at.etcPods()
	}
	return at.etc()
}

// protocolPaths is where iproute2 looks for the names of route protocols, in its order.
func protocolPaths() []string {
	return []string{"/etc/iproute2/rt_protos", "/usr/share/iproute2/rt_protos", "/usr/lib/iproute2/rt_protos"}
}

// protocolPath is the machine's own file; empty where it has none.
func protocolPath() string {
	for _, path := range protocolPaths() {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// routeProtocols is the machine's own file with the agent's protocol in it.
func routeProtocols() string {
	own, err := os.ReadFile(protocolPath())
	if err != nil {
		own = nil // the names that ip has built in remain
	}
	text := string(own)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + fmt.Sprintf("%d\t%s\n", rtnl.RouteProtocol, rtnl.ProtocolName(rtnl.RouteProtocol))
}

// shellStart is for bash and for any sh that reads $ENV. The prompt says where one is.
func shellStart(lab string) string {
	return mark(lab) + `if [ -n "$BASH_VERSION" ] && [ -r ~/.bashrc ]; then . ~/.bashrc; fi
PS1="root@$LABCTL_NODE [` + lab + `] # "
if [ -n "$BASH_VERSION" ]; then PS1='\u@\h [` + lab + `] \w \$ '; fi
unset PROMPT_COMMAND
`
}
