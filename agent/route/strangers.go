//go:build linux

package route

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// strangers are what a hand added beside links, addresses and routes: rules of
// the routing policy, neighbours, queues and firewall tables. The kernel tells of
// most of them on request only. What cannot be listed, this kernel does not have.
func (k *kernel) strangers(u api.Underlay) []api.Object {
	var found []api.Object
	found = append(found, k.rules()...)
	found = append(found, k.neighbours(u)...)
	found = append(found, k.queues(u)...)
	return append(found, k.firewall()...)
}

// ordinaryRules are those that every namespace begins with (fib4_rules.c), by
// their priority, with the table that each looks up.
func ordinaryRules() map[int]string {
	return map[int]string{0: "local", 32766: "main", 32767: "default"}
}

// rules compares the routing policy with the one that the kernel begins with.
func (k *kernel) rules() []api.Object {
	list, err := rtnl.List(func() ([]netlink.Rule, error) { return k.reader.Handle.RuleList(netlink.FAMILY_V4) })
	if err != nil {
		return nil
	}
	var found []api.Object
	missing := ordinaryRules()
	for _, r := range list {
		text := ruleText(r)
		priority := max(0, r.Priority)
		if table, ok := missing[priority]; ok && text == fmt.Sprintf("pref %d lookup %s", priority, table) {
			delete(missing, priority)
			continue
		}
		found = append(found, added("rule", text, "ip rule del "+text))
	}
	for _, priority := range []int{0, 32766, 32767} {
		if table, gone := missing[priority]; gone {
			text := fmt.Sprintf("pref %d lookup %s", priority, table)
			found = append(found, api.Object{Kind: "rule", Name: text, Owner: api.OwnerLab, Condition: api.Drifted, Reason: "gone", Cure: "ip rule add " + text})
		}
	}
	return found
}

// ruleText is a rule as ip-rule(8) takes it to delete it. The library does not
// tell a blackhole from other rules without a table, and neither does this.
func ruleText(r netlink.Rule) string {
	words := []string{fmt.Sprintf("pref %d", max(0, r.Priority))}
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if r.Invert {
		say("not")
	}
	if r.Src != nil {
		say("from %s", r.Src)
	}
	if r.Dst != nil {
		say("to %s", r.Dst)
	}
	if r.Mark != 0 || r.Mask != nil && *r.Mask != 0 {
		mask := uint32(1<<32 - 1)
		if r.Mask != nil {
			mask = *r.Mask
		}
		say("fwmark %#x/%#x", r.Mark, mask)
	}
	if r.IifName != "" {
		say("iif %s", r.IifName)
	}
	if r.OifName != "" {
		say("oif %s", r.OifName)
	}
	if r.IPProto != 0 {
		say("ipproto %d", r.IPProto)
	}
	if r.Sport != nil {
		say("sport %d-%d", r.Sport.Start, r.Sport.End)
	}
	if r.Dport != nil {
		say("dport %d-%d", r.Dport.Start, r.Dport.End)
	}
	if r.Tos != 0 {
		say("tos %#x", r.Tos)
	}
	switch names := map[int]string{unix.RT_TABLE_LOCAL: "local", unix.RT_TABLE_MAIN: "main", unix.RT_TABLE_DEFAULT: "default"}; {
	case r.Goto > 0:
		say("goto %d", r.Goto)
	case names[r.Table] != "":
		say("lookup %s", names[r.Table])
	case r.Table > 0:
		say("lookup %d", r.Table)
	}
	if r.SuppressPrefixlen >= 0 {
		say("suppress_prefixlength %d", r.SuppressPrefixlen)
	}
	return strings.Join(words, " ")
}

// neighbours are permanent entries on the lab's networks, where ARP finds all.
func (k *kernel) neighbours(u api.Underlay) []api.Object {
	list, err := rtnl.List(func() ([]netlink.Neigh, error) { return k.reader.Handle.NeighList(0, netlink.FAMILY_V4) })
	if err != nil {
		return nil
	}
	names := k.networkLinks(u)
	var found []api.Object
	for _, n := range list {
		name := names[n.LinkIndex]
		if name == "" || n.State&netlink.NUD_PERMANENT == 0 {
			continue
		}
		o := added("neighbour", fmt.Sprintf("%s dev %s", n.IP, name), fmt.Sprintf("ip neigh del %s dev %s", n.IP, name))
		o.Reason += ", and says " + n.HardwareAddr.String()
		found = append(found, o)
	}
	return found
}

// networkLinks are the lab's links by their index, without the uplink, whose
// neighbours the lab itself set.
func (k *kernel) networkLinks(u api.Underlay) map[int]string {
	names := map[int]string{}
	for _, l := range u.Links {
		if link, err := k.reader.Handle.LinkByName(l.Name); err == nil && l.Name != u.Uplink {
			names[link.Attrs().Index] = l.Name
		}
	}
	return names
}

// queues are disciplines at the root of the lab's links: the kernel's own have
// no handle.
func (k *kernel) queues(u api.Underlay) []api.Object {
	var found []api.Object
	for _, l := range u.Links {
		link, err := k.reader.Handle.LinkByName(l.Name)
		if err != nil {
			continue
		}
		list, err := k.reader.Handle.QdiscList(link)
		if err != nil {
			continue
		}
		for _, q := range list {
			if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Handle != 0 {
				found = append(found, added("qdisc", q.Type()+" dev "+l.Name, "tc qdisc del dev "+l.Name+" root"))
			}
		}
	}
	return found
}

// ownTable is what labctl calls its table on a machine, of any family.
const ownTable = "labctl"

// firewall are nftables' tables, those that iptables keeps there included. The
// lab's own is that which keeps its packets from leaving by a machine's uplink.
func (k *kernel) firewall() []api.Object {
	if k.netfilter == nil {
		return nil
	}
	// NFT_MSG_GETTABLE and NFTA_TABLE_… of linux/netfilter/nf_tables.h.
	const getTable, tableName, tableUse = 1, 1, 3
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|getTable, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: k.netfilter}
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return nil
	}
	families := map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_INET: "inet", unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev"}
	var found []api.Object
	for _, m := range messages {
		if len(m) < nl.SizeofNfgenmsg || families[m[0]] == "" {
			continue
		}
		attributes, err := nl.ParseRouteAttr(m[nl.SizeofNfgenmsg:])
		if err != nil {
			continue
		}
		name, used := "", false
		for _, a := range attributes {
			switch {
			case a.Attr.Type == tableName:
				name = strings.TrimRight(string(a.Value), "\x00")
			case a.Attr.Type == tableUse && len(a.Value) == 4:
				used = binary.BigEndian.Uint32(a.Value) > 0
			}
		}
		if used && name != ownTable {
			text := families[m[0]] + " " + name
			found = append(found, added("firewall", "table "+text, "nft delete table "+text))
		}
	}
	slices.SortFunc(found, func(a, b api.Object) int { return strings.Compare(a.Name, b.Name) })
	return found
}
