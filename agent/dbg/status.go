//go:build linux

package dbg

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

// nodeStatus is all that status prints.
type nodeStatus struct {
	api.Status
	// Addresses are those in use of the node's pod CIDR.
	PodCIDR   netip.Prefix    `json:"podCIDR,omitzero"`
	Addresses []usedAddress   `json:"addresses"`
	Maps      []inspect.Size  `json:"maps"`
	Healthy   int             `json:"healthy"`
	names     *inspect.Names  // for what the agent was told
	devices   []networkDevice // that bear programs
}

// usedAddress is an address of the pod CIDR and who has it.
type usedAddress struct {
	Address netip.Addr `json:"address"`
	Owner   string     `json:"owner"`
}

// networkDevice is a device that the datapath stands on.
type networkDevice struct {
	name    string
	address netip.Addr
	direct  bool // routes to other nodes lead out of it
}

func (p *program) status() *cobra.Command {
	var brief, verbose, allAddresses bool
	cmd := &cobra.Command{
		Use: "status", Short: "How the agent and its datapath stand",
		Long: `How the agent and its datapath stand
In the layout of cilium-dbg. The lines say what is so of this agent: it is no
Cilium, so its line is Agent; it has no KVStore and no Kubernetes behind it. Host
is Legacy, for packets of pods are routed by the kernel, whose tables are what a
lab is about. Controllers are the objects that the agent holds and watches.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := p.askStatus(cmd.Context())
			if err != nil && brief {
				fmt.Fprintln(p.stderr, "agent: daemon unreachable")
				return errTold
			}
			if err != nil {
				return err
			}
			if brief {
				return p.briefStatus(status)
			}
			return p.show(status, func(w io.Writer) { status.write(w, verbose, allAddresses || verbose) })
		},
	}
	cmd.Flags().BoolVar(&brief, "brief", false, "one line: OK, or what is wrong")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "everything")
	cmd.Flags().BoolVar(&allAddresses, "all-addresses", false, "all addresses in use, not only their number")
	return cmd
}

func (p *program) askStatus(ctx context.Context) (nodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	client := api.NewClient(p.dial)
	defer client.Close()
	answer, err := api.GetStatus.Call(ctx, client, api.None{})
	if err != nil {
		return nodeStatus{}, unreachable(err)
	}
	status := nodeStatus{Status: answer, names: p.names(), Addresses: []usedAddress{}, Maps: []inspect.Size{}}
	for _, object := range answer.Objects {
		if healthy(object) {
			status.Healthy++
		}
	}
	if answer.Datapath != nil {
		status.findDevices()
		if err := p.addMaps(&status); err != nil {
			fmt.Fprintf(p.stderr, "The kernel's maps cannot be read: %v\n", err)
		}
	}
	return status, nil
}

// healthy says whether an object is as it shall be. Refused and skipped are: the
// agent was told what is to be so.
func healthy(o api.Object) bool {
	return o.Condition == api.InPlace || o.Condition == api.Refused || o.Condition == api.Skipped
}

func (s *nodeStatus) findDevices() {
	self := s.names.Self().Address
	for _, name := range s.Datapath.Devices {
		device := networkDevice{name: name}
		for _, link := range s.names.State.Underlay.Links {
			if link.Name == name && len(link.Addresses) > 0 {
				device.address = link.Addresses[0].Addr()
				device.direct = self.IsValid() && slices.ContainsFunc(link.Addresses, func(p netip.Prefix) bool { return p.Addr() == self })
			}
		}
		s.devices = append(s.devices, device)
	}
}

func (p *program) addMaps(s *nodeStatus) error {
	from, err := p.open()
	if err != nil {
		return err
	}
	dump, err := from.Read(bpf.Endpoints)
	if err != nil {
		return err
	}
	if pods := s.names.State.Pods; pods != nil {
		s.PodCIDR = pods.CIDR
	}
	for _, e := range dump.EndpointList() {
		if !s.PodCIDR.IsValid() || !s.PodCIDR.Contains(e.Address) {
			continue
		}
		owner := "router"
		if !e.Host {
			owner = s.names.Pod(e.Address)
		}
		s.Addresses = append(s.Addresses, usedAddress{Address: e.Address, Owner: owner})
	}
	slices.SortFunc(s.Addresses, func(a, b usedAddress) int { return a.Address.Compare(b.Address) })
	s.Maps, err = from.ReadSizes()
	return err
}

func (p *program) briefStatus(s nodeStatus) error {
	for _, object := range s.Objects {
		if !healthy(object) {
			fmt.Fprintf(p.stdout, "error in controller %s %s: %s\n", object.Kind, object.Name, reasonOf(object))
			return errTold
		}
	}
	_, err := fmt.Fprintln(p.stdout, "OK")
	return err
}

func reasonOf(o api.Object) string {
	if o.Reason == "" {
		return string(o.Condition)
	}
	return o.Reason
}

// narrow is aligned as the tables that cilium-dbg begins with two columns' width.
func narrow(w io.Writer, rows func(w io.Writer)) {
	aligned := tabwriter.NewWriter(w, 2, 0, 3, ' ', 0)
	rows(aligned)
	_ = aligned.Flush() // w is memory
}

func (s *nodeStatus) write(w io.Writer, verbose, addresses bool) {
	narrow(w, func(w io.Writer) {
		fmt.Fprint(w, "KVStore:\tDisabled\t\nKubernetes:\tDisabled\t\n")
		s.writeReplacement(w)
		fmt.Fprint(w, "Host firewall:\tDisabled\nSRv6:\tDisabled\nCNI Chaining:\tnone\n")
		fmt.Fprintf(w, "Agent:\tOk   %s\n", s.Version.Version)
		s.writeMonitor(w)
		s.writeAddresses(w, addresses)
		fmt.Fprint(w, "IPv4 BIG TCP:\tDisabled\nIPv6 BIG TCP:\tDisabled\nBandwidthManager:\tDisabled\n")
		s.writeDatapath(w)
		s.writeControllers(w, verbose)
		fmt.Fprint(w, "Proxy Status:\tNo managed proxy redirect\nGlobal Identity Range:\tmin 256, max 65535\nHubble:\tDisabled\n")
		if verbose && s.Datapath != nil {
			s.writeDetails(w)
		}
		fmt.Fprint(w, "Encryption:\tDisabled\t\nCluster health:\t\tProbe disabled\n")
	})
}

func (s *nodeStatus) replaces() bool {
	cluster := s.names.State.Cluster
	return s.Datapath != nil && cluster != nil && cluster.KubeProxyReplacement
}

// deviceText is the devices with their addresses, as Cilium lists them.
func (s *nodeStatus) deviceText() string {
	var words []string
	for _, d := range s.devices {
		word := d.name
		if d.address.IsValid() {
			word += " " + d.address.String()
		}
		if d.direct {
			word += " (Direct Routing)"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func (s *nodeStatus) writeReplacement(w io.Writer) {
	if !s.replaces() {
		fmt.Fprint(w, "KubeProxyReplacement:\tFalse\t\n")
		return
	}
	devices := ""
	if len(s.devices) > 0 {
		devices = "[" + s.deviceText() + "]"
	}
	fmt.Fprintf(w, "KubeProxyReplacement:\tTrue\t%s\n", devices)
}

func (s *nodeStatus) writeMonitor(w io.Writer) {
	for _, size := range s.Maps {
		if size.Name == inspect.EventsMap {
			fmt.Fprintf(w, "NodeMonitor:\tListening for events on %d CPUs with %dx%d of shared memory\n",
				runtime.NumCPU(), int(size.Size)/os.Getpagesize(), os.Getpagesize())
			return
		}
	}
	fmt.Fprint(w, "NodeMonitor:\tDisabled\n")
}

func (s *nodeStatus) writeAddresses(w io.Writer, all bool) {
	if !s.PodCIDR.IsValid() {
		return
	}
	// Its first address names the network and its last is the broadcast.
	usable := 1<<(32-s.PodCIDR.Bits()) - 2
	fmt.Fprintf(w, "IPAM:\tIPv4: %d/%d allocated from %s, \n", len(s.Addresses), max(0, usable), s.PodCIDR)
	if !all {
		return
	}
	fmt.Fprint(w, "Allocated addresses:\n")
	for _, a := range s.Addresses {
		fmt.Fprintf(w, "  %s (%s)\n", a.Address, a.Owner)
	}
}

func (s *nodeStatus) writeDatapath(w io.Writer) {
	if s.Datapath == nil {
		return
	}
	network := "Native"
	if pods := s.names.State.Pods; pods != nil && pods.Overlay != nil {
		network = "Tunnel [vxlan]"
	}
	fmt.Fprintf(w, "Routing:\tNetwork: %s   Host: Legacy\n", network)
	attach := "TCX"
	if s.Datapath.Attach == "clsact" {
		attach = "Legacy TC"
	}
	fmt.Fprintf(w, "Attach Mode:\t%s\nDevice Mode:\tveth\n", attach)
	cluster := s.names.State.Cluster
	if cluster == nil || !cluster.Masquerade {
		fmt.Fprint(w, "Masquerading:\tDisabled\n")
		return
	}
	fmt.Fprintf(w, "Masquerading:\tBPF\t[%s]\t%s [IPv4: Enabled, IPv6: Disabled]\n",
		strings.Join(s.Datapath.Devices, ", "), cluster.NativeCIDR)
}

func (s *nodeStatus) writeControllers(w io.Writer, all bool) {
	fmt.Fprintf(w, "Controller Status:\t%d/%d healthy\n", s.Healthy, len(s.Objects))
	var rows []string
	for _, o := range s.Objects {
		if all || !healthy(o) {
			rows = append(rows, fmt.Sprintf("  %s %s\t%s\t%d\t%s\n", o.Kind, o.Name, o.Condition, o.Mended, o.Reason))
		}
	}
	if len(rows) == 0 {
		return
	}
	inner(w, func(w io.Writer) {
		fmt.Fprint(w, "  Name\tCondition\tMended\tMessage\n")
		for _, row := range rows {
			fmt.Fprint(w, row)
		}
	})
}

// inner is a table within the status.
func inner(w io.Writer, rows func(w io.Writer)) {
	aligned := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	rows(aligned)
	_ = aligned.Flush() // w is memory
}

func enabled(is bool) string {
	if is {
		return "Enabled"
	}
	return "Disabled"
}

func (s *nodeStatus) writeDetails(w io.Writer) {
	cluster := s.names.State.Cluster
	if cluster != nil {
		selection := "Random"
		if cluster.Algorithm == "maglev" {
			selection = fmt.Sprintf("Maglev (Table Size: %d)", bpf.DefaultMaglevSize)
		}
		fmt.Fprint(w, "KubeProxyReplacement Details:\n")
		inner(w, func(w io.Writer) {
			status := "False"
			if s.replaces() {
				status = "True"
			}
			fmt.Fprintf(w, "  Status:\t%s\n  Socket LB:\t%s\n  Socket LB Tracing:\tDisabled\n", status, enabled(s.Datapath.SocketLB))
			if s.Datapath.SocketLB {
				fmt.Fprint(w, "  Socket LB Coverage:\tFull\n")
			}
			fmt.Fprintf(w, "  Devices:\t%s\n  Mode:\tSNAT\n  Backend Selection:\t%s\n", s.deviceText(), selection)
			fmt.Fprint(w, "  Session Affinity:\tEnabled\n  Graceful Termination:\tEnabled\n  NAT46/64 Support:\tDisabled\n  XDP Acceleration:\tDisabled\n")
			fmt.Fprintf(w, "  Services:\n  - ClusterIP:\tEnabled\n  - NodePort:\tEnabled (Range: %d-%d) \n", bpf.DefaultNodePortMin, bpf.DefaultNodePortMax)
			fmt.Fprint(w, "  - LoadBalancer:\tDisabled \n  - externalIPs:\tEnabled \n  - HostPort:\tDisabled\n")
		})
	}
	for _, missing := range s.Datapath.Missing {
		fmt.Fprintf(w, "Missing:\t%s\n", missing)
	}
	fmt.Fprint(w, "BPF Maps:\tdynamic sizing: off\n")
	inner(w, func(w io.Writer) {
		fmt.Fprint(w, "  Name\tSize\n")
		for _, size := range s.Maps {
			fmt.Fprintf(w, "  %s\t%d\n", size.Name, size.Size)
		}
	})
}
