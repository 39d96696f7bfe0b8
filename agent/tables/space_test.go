//go:build linux

package tables

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
)

// A namespace's rules and the routes of all its tables are what ip(8) shows.
func TestSpaceAgreesWithIP(t *testing.T) {
	ns := busy(t)
	for _, line := range []string{
		"rule add pref 100 from 10.0.0.0/8 to 172.20.0.0/16 iif eth1 lookup 77",
		"rule add pref 101 not fwmark 0x10/0xff goto 200",
		"rule add pref 102 ipproto udp dport 53-54 prohibit",
		"rule add pref 200 oif eth2 lookup main suppress_prefixlength 0",
		"route add 172.30.0.0/16 dev eth1 table 77",
	} {
		ns.IP(line)
	}
	got, err := ReadSpace(ns.Handle)
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Rule{
		{Action: "lookup", Table: api.TableLocal, SuppressLength: -1},
		{Priority: 100, From: netip.MustParsePrefix("10.0.0.0/8"), To: netip.MustParsePrefix("172.20.0.0/16"), In: "eth1", Action: "lookup", Table: 77, SuppressLength: -1},
		{Priority: 101, Not: true, Mark: 0x10, Mask: 0xff, Action: "goto", Goto: 200, SuppressLength: -1},
		{Priority: 102, Protocol: 17, DestinationPorts: [2]uint16{53, 54}, Action: "prohibit", SuppressLength: -1},
		{Priority: 200, Out: "eth2", Action: "lookup", Table: api.TableMain, SuppressLength: 0},
		{Priority: 32766, Action: "lookup", Table: api.TableMain, SuppressLength: -1},
		{Priority: 32767, Action: "lookup", Table: api.TableDefault, SuppressLength: -1},
	}
	if diff := cmp.Diff(want, got.Rules, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	var shown []any
	if err := json.Unmarshal([]byte(ns.IP("-j -4 route show table all")), &shown); err != nil {
		t.Fatal(err)
	}
	if len(got.Routes) != len(shown) {
		t.Errorf("%d routes in all tables, ip shows %d", len(got.Routes), len(shown))
	}
	if got.Sysctls[api.SysctlForward] != "1" {
		t.Errorf("sysctls: %v", got.Sysctls)
	}
}

// The firewall is read rule by rule, whichever tool wrote it: each verdict, and
// what it asks for.
func TestFirewall(t *testing.T) {
	ns := nstest.New(t)
	for _, line := range []string{
		"nft add table inet guard",
		"nft add chain inet guard pass { type filter hook forward priority -5 ; policy drop ; }",
		"nft add chain inet guard more",
		"nft add rule inet guard pass ip saddr 10.0.0.0/8 tcp dport { 80, 443-445 } counter accept",
		"nft add rule inet guard pass iifname eth* ct state established,related accept",
		"nft add rule inet guard pass icmp type echo-request jump more",
		"nft add rule inet guard more ip daddr != 172.20.2.2 reject",
		"nft add rule inet guard more limit rate 1/second drop",
		"iptables-nft -A FORWARD -s 192.168.10.0/24 ! -i eth1 -p tcp --dport 80 -m conntrack --ctstate NEW -j DROP",
		"iptables-nft -t nat -A POSTROUTING -s 172.20.0.0/24 -o eth1 -j MASQUERADE",
		"iptables-legacy -P INPUT DROP",
		"iptables-legacy -A INPUT -p icmp --icmp-type 8 -j ACCEPT",
		"iptables-legacy -A INPUT -m ttl --ttl-lt 5 -j DROP",
	} {
		ns.Run(strings.Fields(line)...)
	}
	got, err := ReadSpace(ns.Handle)
	if err != nil || len(got.Missing) > 0 {
		t.Fatalf("%v, missing %v", err, got.Missing)
	}
	var lines []string
	for _, c := range got.Chains {
		if len(c.Rules) == 0 && c.Policy != "drop" {
			continue
		}
		lines = append(lines, strings.Join([]string{c.Tool, c.Family, c.Table, c.Name, c.Hook, c.Policy}, " "))
		for _, r := range c.Rules {
			line := "  " + strings.TrimSpace(r.Verdict+" "+r.Target)
			for _, m := range r.Matches {
				not := ""
				if m.Not {
					not = "not "
				}
				line += ", " + not + m.Key + " " + strings.Join(m.Values, "|")
			}
			lines = append(lines, line)
		}
	}
	want := []string{
		"nft inet guard pass forward drop",
		"  accept, source 10.0.0.0/8, dport 80|443-445, protocol tcp",
		"  accept, in eth*, state established|related",
		"  jump more, icmp-type echo-request, protocol icmp",
		"nft inet guard more  ",
		"  reject, not destination 172.20.2.2",
		"  drop, other limit",
		"iptables ip filter FORWARD forward accept",
		"  drop, source 192.168.10.0/24, not in eth1, protocol tcp, dport 80, state new",
		"iptables ip nat POSTROUTING postrouting accept",
		"  masquerade, source 172.20.0.0/24, out eth1",
		"iptables-legacy ip filter INPUT input drop",
		"  accept, protocol icmp, icmp-type echo-request",
		"  drop, other --ttl-lt, other 5",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
