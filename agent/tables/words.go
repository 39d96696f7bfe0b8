//go:build linux

package tables

import (
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// typeNames are the types of a route (linux/rtnetlink.h) in ip-route(8)'s words.
var typeNames = [...]string{
	unix.RTN_UNSPEC:      "none",
	unix.RTN_UNICAST:     "unicast",
	unix.RTN_LOCAL:       "local",
	unix.RTN_BROADCAST:   "broadcast",
	unix.RTN_ANYCAST:     "anycast",
	unix.RTN_MULTICAST:   "multicast",
	unix.RTN_BLACKHOLE:   "blackhole",
	unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT:    "prohibit",
	unix.RTN_THROW:       "throw",
	unix.RTN_NAT:         "nat",
	unix.RTN_XRESOLVE:    "xresolve",
}

// TypeName is the name of a route's type (unix.RTN_UNICAST, …) as ip-route(8) has it.
func TypeName(number int) string {
	if number < 0 || number >= len(typeNames) {
		return strconv.Itoa(number)
	}
	return typeNames[number]
}

// TypeNumber is the inverse of [TypeName]; unknown names are unix.RTN_UNSPEC.
func TypeNumber(name string) int { return max(0, slices.Index(typeNames[:], name)) }

// ScopeNumber is the number of a scope by its name in [api.Route].
func ScopeNumber(name string) int {
	for _, number := range []int{unix.RT_SCOPE_SITE, unix.RT_SCOPE_LINK, unix.RT_SCOPE_HOST, unix.RT_SCOPE_NOWHERE} {
		if scopeName(number) == name {
			return number
		}
	}
	number, _ := strconv.Atoi(name) // a scope without a name; global is 0
	return number
}

func scopeName(number int) string {
	switch number {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	case unix.RT_SCOPE_NOWHERE:
		return "nowhere"
	default:
		return strconv.Itoa(number)
	}
}

func neighbourState(state int) string {
	var words []string
	for _, s := range []struct {
		bit  int
		word string
	}{
		{netlink.NUD_INCOMPLETE, "incomplete"},
		{netlink.NUD_REACHABLE, "reachable"},
		{netlink.NUD_STALE, "stale"},
		{netlink.NUD_DELAY, "delay"},
		{netlink.NUD_PROBE, "probe"},
		{netlink.NUD_FAILED, "failed"},
		{netlink.NUD_NOARP, "noarp"},
		{netlink.NUD_PERMANENT, "permanent"},
	} {
		if state&s.bit != 0 {
			words = append(words, s.word)
		}
	}
	return strings.Join(words, ",")
}

// forwardState is bridge-fdb(8)'s word: permanent, static, stale, or none for an
// entry that was learned and is in use.
func forwardState(state int) string {
	switch {
	case state&netlink.NUD_PERMANENT != 0:
		return "permanent"
	case state&netlink.NUD_NOARP != 0:
		return "static"
	case state&netlink.NUD_STALE != 0:
		return "stale"
	}
	return ""
}
