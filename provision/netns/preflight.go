//go:build linux

package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Preflight makes one link of each kind in a namespace that nobody else sees
// and that is gone when it returns; a BPF map, a mount and a cgroup likewise.
func (p *Provider) Preflight(_ context.Context, t *topo.Topology) []provision.Finding {
	if lacking := lackingCapabilities(); lacking != "" {
		return []provision.Finding{{Severity: provision.Missing, Subject: "privileges",
			Detail: "no " + lacking + ", which network namespaces need", Cure: rightsCure(), Err: provision.ErrPermission}}
	}
	findings := []provision.Finding{{Severity: provision.Fine, Subject: "privileges", Detail: "CAP_SYS_ADMIN and CAP_NET_ADMIN"}}
	findings = append(findings, p.tryLinks(t)...)
	findings = append(findings, p.tryBPF(t)...)
	at := p.options.paths("x")
	findings = append(findings, writable("run directory", filepath.Dir(at.run)), executable(writable("data directory", filepath.Dir(at.data)), filepath.Dir(at.data)))
	return findings
}

// rightsCure differs for root, whom sudo gives nothing more.
func rightsCure() string {
	if os.Geteuid() == 0 {
		return "give this container or session CAP_SYS_ADMIN and CAP_NET_ADMIN, such as docker run --privileged"
	}
	return "sudo labctl up"
}

// lackingCapabilities is empty where the process may do what is needed.
func lackingCapabilities() string {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return "answer from capget(2)"
	}
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			return c.name
		}
	}
	return ""
}

// tryLinks runs in a namespace that ends with its thread.
func (p *Provider) tryLinks(t *topo.Topology) []provision.Finding {
	var findings []provision.Finding
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer ns.Close()
		w, err := newWriter(ns)
		if err != nil {
			return err
		}
		defer w.Close()
		findings = append(findings, provision.Finding{Severity: provision.Fine, Subject: "namespaces", Detail: "network, hostname and mounts"})
		veth := linkPlan{Name: "eth0", Port: "port", MTU: defaultMTU, PortMTU: defaultMTU, MAC: linkAddress("", "", "")}
		findings = append(findings,
			tried(errors.Join(w.makeVeth(veth, 0, ns), w.flush()), "veth"),
			tried(errors.Join(w.makeBridge("br"), w.flush()), "bridge"))
		if hasDummy(t) {
			findings = append(findings, p.tryDummy(w))
		}
		if stages := tunnelled(t); len(stages) > 0 {
			findings = append(findings, tryTunnel(w, t.Cluster.RoutingMode == topo.RoutingVXLAN, stages))
		}
		return nil
	})
	if err != nil {
		return append(findings, provision.Finding{Severity: provision.Missing, Subject: "namespaces",
			Detail: err.Error(), Cure: "use a kernel with CONFIG_NET_NS, CONFIG_UTS_NS", Err: class(err)})
	}
	return findings
}

func hasDummy(t *topo.Topology) bool {
	for _, node := range t.Nodes.All() {
		for _, iface := range node.Interfaces.All() {
			if iface.Type == topo.Dummy {
				return true
			}
		}
	}
	return false
}

// tunnelled are the stages in which nodes carry packets by VXLAN; "it" is the
// topology without any.
func tunnelled(t *topo.Topology) []string {
	var stages []string
	for name, stage := range t.Stages.All() {
		if stage.Cluster != nil && stage.Cluster.RoutingMode == topo.RoutingVXLAN {
			stages = append(stages, "stage "+name)
		}
	}
	if len(stages) == 0 && t.Cluster.RoutingMode == topo.RoutingVXLAN {
		stages = []string{"it"}
	}
	return stages
}

// tryTunnel asks for a tunnel's device without saying which: a kernel that has the
// driver finds fault with that, and one that has not knows no such kind.
func tryTunnel(w *writer, now bool, stages []string) provision.Finding {
	found := provision.Finding{Severity: provision.Fine, Subject: "vxlan links"}
	err := errors.Join(w.makeAlone(linkPlan{Name: "tunnelx", MTU: defaultMTU, MAC: linkAddress("", "", "tunnel")}, kindVXLAN), w.flush())
	if errors.Is(err, unix.EOPNOTSUPP) {
		found.Severity, found.Detail = provision.Warning, "this kernel has no VXLAN, which "+strings.Join(stages, ", ")+" needs"
		found.Cure, found.Err = "sudo modprobe vxlan", provision.ErrUnsupported
		if now {
			found.Severity = provision.Missing
		}
	}
	return found
}

func tried(err error, driver string) provision.Finding {
	if err != nil {
		return provision.Finding{Severity: provision.Missing, Subject: driver + " links", Detail: err.Error(),
			Cure: "sudo modprobe " + driver, Err: class(err)}
	}
	return provision.Finding{Severity: provision.Fine, Subject: driver + " links"}
}

func class(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return provision.ErrPermission
	default:
		return provision.ErrUnsupported
	}
}

func (p *Provider) tryDummy(w *writer) provision.Finding {
	try := func(k kind) error {
		return errors.Join(w.makeAlone(linkPlan{Name: string(k) + "x", MTU: defaultMTU, MAC: linkAddress("", "", string(k))}, k), w.flush())
	}
	if try(kindDummy) == nil {
		return provision.Finding{Severity: provision.Fine, Subject: "dummy links"}
	}
	if err := try(kindIFB); err != nil {
		return provision.Finding{Severity: provision.Missing, Subject: "dummy links",
			Detail: fmt.Sprintf("neither dummy nor ifb: %v", err), Cure: "sudo modprobe dummy", Err: class(err)}
	}
	p.noDummy.Store(true)
	return provision.Finding{Severity: provision.Warning, Subject: "dummy links",
		Detail: "no dummy driver; ifb stands in for it and looks the same to ip, but for its kind", Cure: "sudo modprobe dummy"}
}

// nearest is the directory, or the nearest one above that exists.
func nearest(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func writable(subject, dir string) provision.Finding {
	at := nearest(dir)
	err := unix.Access(at, unix.W_OK)
	switch {
	case err == nil:
		return provision.Finding{Severity: provision.Fine, Subject: subject, Detail: dir}
	case errors.Is(err, unix.EROFS):
		return provision.Finding{Severity: provision.Missing, Subject: subject, Detail: at + " is on a read-only file system",
			Cure: "sudo mount -o remount,rw " + at, Err: provision.ErrPermission}
	default:
		return provision.Finding{Severity: provision.Missing, Subject: subject, Detail: fmt.Sprintf("%s: %v", at, err),
			Cure: "sudo mkdir -p " + dir, Err: provision.ErrPermission}
	}
}

// executable adds to what was found of dir that nothing in it can be run, as
// the nodes' agent must be.
func executable(found provision.Finding, dir string) provision.Finding {
	var on unix.Statfs_t
	if found.Severity == provision.Missing || unix.Statfs(nearest(dir), &on) != nil || on.Flags&unix.ST_NOEXEC == 0 {
		return found
	}
	return provision.Finding{Severity: provision.Missing, Subject: found.Subject,
		Detail: dir + " is on a file system mounted noexec, where the nodes' agent cannot run",
		Cure:   "choose a directory on a file system without noexec: labctl up --data-dir DIR", Err: provision.ErrPermission}
}
