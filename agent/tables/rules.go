//go:build linux

package tables

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// ruleActions are the actions of a rule (linux/fib_rules.h) in ip-rule(8)'s words.
var ruleActions = map[uint8]string{
	1: "lookup", 2: "goto", 3: "nop", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
}

// rules lists the routing policy. The library's own list lacks what a rule does.
func (r *Reader) rules() ([]api.Rule, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.netconf}
	request.AddData(nl.NewIfInfomsg(unix.AF_INET))
	var list []api.Rule
	err := request.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWRULE, func(b []byte) bool {
		if rule, ok := parseRule(b); ok {
			list = append(list, rule)
		}
		return true
	})
	return list, err
}

// fibRuleInvert is FIB_RULE_INVERT (linux/fib_rules.h).
const fibRuleInvert = 2

// parseRule reads struct fib_rule_hdr and its attributes (linux/fib_rules.h).
func parseRule(b []byte) (api.Rule, bool) {
	if len(b) < unix.SizeofRtMsg {
		return api.Rule{}, false
	}
	attributes, err := nl.ParseRouteAttr(b[unix.SizeofRtMsg:])
	if err != nil {
		return api.Rule{}, false
	}
	rule := api.Rule{
		Action: ruleActions[b[7]], Table: int(b[4]), SuppressLength: -1,
		Not: binary.NativeEndian.Uint32(b[8:])&fibRuleInvert != 0,
	}
	for _, a := range attributes {
		setRule(&rule, a.Attr.Type, a.Value, int(b[1]), int(b[2]))
	}
	return rule, true
}

// setRule takes over one attribute; to and from are lengths of prefixes.
func setRule(rule *api.Rule, kind uint16, value []byte, to, from int) {
	number := uint32(0)
	if len(value) >= 4 {
		number = binary.NativeEndian.Uint32(value)
	}
	switch kind {
	case nl.FRA_SRC:
		rule.From = netip.PrefixFrom(toAddr(value), from)
	case nl.FRA_DST:
		rule.To = netip.PrefixFrom(toAddr(value), to)
	case nl.FRA_IIFNAME:
		rule.In = strings.TrimRight(string(value), "\x00")
	case nl.FRA_OIFNAME:
		rule.Out = strings.TrimRight(string(value), "\x00")
	case nl.FRA_GOTO:
		rule.Goto = int(number)
	case nl.FRA_PRIORITY:
		rule.Priority = int(number)
	case nl.FRA_FWMARK:
		rule.Mark = number
	case nl.FRA_FWMASK:
		rule.Mask = number
	case nl.FRA_TABLE:
		rule.Table = int(number)
	case nl.FRA_SUPPRESS_PREFIXLEN:
		rule.SuppressLength = int(int32(number))
	case nl.FRA_IP_PROTO:
		rule.Protocol = int(value[0])
	case nl.FRA_SPORT_RANGE:
		rule.SourcePorts = [2]uint16{binary.NativeEndian.Uint16(value), binary.NativeEndian.Uint16(value[2:])}
	case nl.FRA_DPORT_RANGE:
		rule.DestinationPorts = [2]uint16{binary.NativeEndian.Uint16(value), binary.NativeEndian.Uint16(value[2:])}
	}
}
