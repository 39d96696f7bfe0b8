//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The goals for traffic through a service.
const (
	connectGoal  = 1.10
	rttGoal      = 1.12
	iptablesGoal = 3.5
	nftablesGoal = 1.3
)

const (
	// ruleServices are in the rules of iptables and nft, and in the agent's maps.
	ruleServices = 5000
	// loadLimit bounds how long a tool may take for its rules.
	loadLimit = 2 * time.Minute
	// Many short turns, so that all ways meet the same machine.
	turnsPerRound = 10
	connectsATurn = 50
	tripsATurn    = 100
)

// way is one to a server, and what was measured on it, by what was asked.
type way struct {
	lane  *lane
	asked []asked
	took  map[string]samples
}

type asked struct {
	what  string
	to    netip.AddrPort
	count int
}

// field is all lanes of a run.
type field struct {
	lanes  []*lane
	plains []*plain
	ways   []*way
	nodes  []*node
}

func (f *field) close() (err error) {
	for _, l := range f.lanes {
		err = errors.Join(err, l.close())
	}
	for _, p := range f.plains {
		p.close()
	}
	for _, n := range f.nodes {
		n.close()
	}
	return err
}

func (f *field) lane(cgroup string, number int, client *os.File, servers []*os.File) (*lane, error) {
	l, err := newLane(cgroup, number, client, servers)
	if err == nil {
		f.lanes = append(f.lanes, l)
	}
	return l, err
}

// way goes to an address; port is that which leads to a server's first.
func (f *field) way(l *lane, to netip.Addr, port uint16) *way {
	first, second := netip.AddrPortFrom(to, port), netip.AddrPortFrom(to, port+1)
	w := &way{lane: l, took: map[string]samples{}, asked: []asked{
		{askConnect, first, connectsATurn}, {askPath, first, tripsATurn}, {askRTT, second, tripsATurn},
	}}
	f.ways = append(f.ways, w)
	return w
}

// measureTraffic sends real traffic between pods of one node: in a lab through
// its datapath, in namespaces that the kernel's stack joins, and in such with
// kube-proxy's rules. Rounds go all ways in turn.
func measureTraffic(ctx context.Context, r *rig) (rows []Row, err error) {
	f := &field{}
	defer func() { err = errors.Join(err, f.close()) }()
	direct, err := f.plain(ctx, nil)
	if err != nil {
		return nil, err
	}
	n, ours, err := f.ours(ctx, r)
	if err != nil {
		return nil, err
	}
	var missing []Row
	rivals := kubeProxies()
	for i := range rivals {
		way, err := f.plain(ctx, &rivals[i])
		if errors.Is(err, exec.ErrNotFound) {
			missing = append(missing, absent("TCP connect to a service, against "+rivals[i].name, fmt.Sprintf("%s is missing (apt-get install %s)", rivals[i].argv[0], rivals[i].pack)))
			continue
		}
		if err != nil {
			return nil, err
		}
		rivals[i].way = way
	}
	for i := range r.rounds*turnsPerRound + 1 {
		for _, w := range f.ways {
			if err := w.turn(ctx, i > 0); err != nil {
				return nil, err
			}
		}
	}
	rows = append(ours.rows(direct), rivalRows(ours, rivals)...)
	err = f.close()
	f.lanes, f.plains, f.nodes = nil, nil, nil
	if err == nil {
		err = r.down(ctx, n.lab)
	}
	if err != nil {
		return nil, err
	}
	return append(rows, missing...), r.kernel.settle(ctx)
}

// turn goes one way; the first one, for caches and neighbours, does not count.
func (w *way) turn(ctx context.Context, counts bool) error {
	for _, a := range w.asked {
		took, err := w.lane.ask(ctx, a.what, a.to, a.count)
		if err != nil {
			return err
		}
		if counts {
			w.took[a.what] = append(w.took[a.what], took)
		}
	}
	return nil
}

// plain makes a node without an agent, with the rules of a kube-proxy if any.
func (f *field) plain(ctx context.Context, rules *kubeProxy) (*way, error) {
	if rules != nil {
		if _, err := exec.LookPath(rules.argv[0]); err != nil {
			return nil, err
		}
	}
	p, err := newPlain()
	if err != nil {
		return nil, err
	}
	f.plains = append(f.plains, p)
	to, port := plainServer, uint16(connectPort)
	if rules != nil {
		limited, cancel := context.WithTimeout(ctx, loadLimit)
		defer cancel()
		start := time.Now()
		if err := p.load(limited, rules.rules(ruleServices), rules.argv...); err != nil {
			return nil, err
		}
		rules.load.took(start)
		to, port = rulesService(ruleServices/2), rulesPort
	}
	l, err := f.lane("", 0, p.client, p.servers)
	if err != nil {
		return nil, err
	}
	w := f.way(l, to, port)
	if rules != nil {
		w.asked = w.asked[:2] // the rules know one port of a server
	}
	return w, nil
}

// balanced are the ways in a lab.
type balanced struct {
	socket, pod, packet *way
}

// ours brings up a lab of one node, and puts as many services into its maps as
// the rivals have in their rules.
func (f *field) ours(ctx context.Context, r *rig) (*node, balanced, error) {
	n, err := r.newNode(ctx, true)
	if err != nil {
		return nil, balanced{}, err
	}
	f.nodes = append(f.nodes, n)
	pods, err := n.podsByName(ctx)
	if err != nil {
		return nil, balanced{}, err
	}
	if err := n.fill(ctx, ruleServices); err != nil {
		return nil, balanced{}, err
	}
	var files []*os.File
	defer func() {
		for _, file := range files {
			file.Close()
		}
	}()
	for _, name := range append([]string{"client"}, serverNames()...) {
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pods[name].PID))
		if err != nil {
			return nil, balanced{}, fmt.Errorf("pod %s: %w", name, err)
		}
		files = append(files, file)
	}
	ip, err := n.service("server")
	if err != nil {
		return nil, balanced{}, err
	}
	inside, err := f.lane(filepath.Join(n.on.Cgroup(), "pods", pods["client"].UID), 0, files[0], files[1:])
	if err != nil {
		return nil, balanced{}, err
	}
	outside, err := f.lane("", 1, files[0], files[1:]) // no hook of the node's cgroup sees its sockets
	if err != nil {
		return nil, balanced{}, err
	}
	return n, balanced{
		socket: f.way(inside, ip, firstPortOfService),
		pod:    f.way(inside, pods[serverNames()[0]].Address, connectPort),
		packet: f.way(outside, ip, firstPortOfService+portsOfLane),
	}, nil
}

func serverNames() []string {
	var names []string
	for i := range serversPerLane {
		names = append(names, fmt.Sprintf("server-%d", i))
	}
	return names
}

func (b balanced) rows(direct *way) []Row {
	const is = "plain veth pairs, routed by the kernel's stack, no service"
	var rows []Row
	for _, m := range []struct {
		ask, what string
		goal      float64
	}{
		{askConnect, "TCP connect to", connectGoal},
		{askRTT, "TCP round trip to", rttGoal},
		{askPath, "TCP round trip, nobody to be woken, to", 0},
	} {
		for _, way := range []struct {
			to   string
			took samples
		}{{"a service, socket LB", b.socket.took[m.ask]}, {"a service, tc LB", b.packet.took[m.ask]}, {"a pod", b.pod.took[m.ask]}} {
			row := timed(m.what+" "+way.to, way.took).against(direct.took[m.ask], is)
			if way.to == "a service, socket LB" && m.goal > 0 {
				row = row.faster(m.goal)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// kubeProxy is one of its modes.
type kubeProxy struct {
	name  string
	argv  []string
	pack  string // the Debian package of the tool
	rules func(services int) string
	goal  float64
	way   *way
	load  samples
}

func kubeProxies() []kubeProxy {
	return []kubeProxy{
		{name: "iptables (legacy)", argv: []string{"iptables-legacy-restore", "--noflush"}, pack: "iptables", rules: iptablesRules, goal: iptablesGoal},
		{name: "iptables (nft)", argv: []string{"iptables-nft-restore", "--noflush"}, pack: "iptables", rules: iptablesRules, goal: iptablesGoal},
		{name: "nftables", argv: []string{"nft", "-f", "-"}, pack: "nftables", rules: nftRules, goal: nftablesGoal},
	}
}

func rivalRows(ours balanced, rivals []kubeProxy) []Row {
	var rows []Row
	for _, k := range rivals {
		if k.way == nil {
			continue
		}
		rows = append(rows,
			timed("TCP connect to a service, against "+k.name, ours.socket.took[askConnect]).
				against(k.way.took[askConnect], fmt.Sprintf("kube-proxy's rules for %d services, the one in the middle", ruleServices)).faster(k.goal),
			timed("  rules loaded by "+strings.Join(k.argv, " "), k.load))
	}
	return rows
}
