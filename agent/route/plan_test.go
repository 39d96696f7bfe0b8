package route

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

var update = flag.Bool("update", false, "write the expected output anew")

// Each file of testdata is a state, what was seen, and the whole plan.
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { testPlan(t, file) })
	}
}

func testPlan(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	section := func(name string) string {
		for _, f := range archive.Files {
			if f.Name == name {
				return string(f.Data)
			}
		}
		return ""
	}
	var state api.State
	dec := json.NewDecoder(strings.NewReader(section("state.json")))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&state); err != nil {
		t.Fatal(err)
	}
	seen := Observation{NoARP: make(map[string]bool)}
	each(section("links"), func(words []string) {
		link := parseLink(words)
		link.Index = len(seen.Tables.Links) + 1
		seen.NoARP[link.Name] = slices.Contains(words, "noarp")
		seen.Tables.Links = append(seen.Tables.Links, link)
	})
	each(section("learned"), func(words []string) {
		if words[0] == "complete" {
			seen.Learned.Complete = true
			return
		}
		seen.Learned.Routes = append(seen.Learned.Routes, LearnedRoute{
			Prefix: netip.MustParsePrefix(words[0]), NextHop: netip.MustParseAddr(words[2]), Peer: words[4],
		})
	})
	each(section("routes"), func(words []string) { seen.Tables.Routes = append(seen.Tables.Routes, parseRoute(t, words)) })
	each(section("lookups"), func(words []string) { seen.Peers = append(seen.Peers, parseDecision(words)) })
	each(section("neighbours"), func(words []string) {
		seen.Tables.Neighbours = append(seen.Tables.Neighbours, api.Neighbour{
			Address: netip.MustParseAddr(words[0]), Device: words[2], MAC: words[4], State: strings.ToLower(words[5])})
	})
	each(section("forwards"), func(words []string) {
		seen.Tables.Forwards = append(seen.Tables.Forwards, api.Forward{
			MAC: words[0], Remote: netip.MustParseAddr(words[2]), State: words[4], Device: TunnelDevice})
	})
	each(section("guarded"), func(words []string) { seen.Guarded, _ = strconv.Atoi(words[0]) })
	each(section("sysctls"), func(words []string) { seen.Sysctls = append(seen.Sysctls, SysctlValue{Value: words[0]}) })

	actions, objects := Plan(state, seen)
	var gotActions, gotObjects strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&gotActions, "%s  [%s %s]\n", a, a.Object.Kind, a.Object.Name)
	}
	for _, o := range objects {
		fmt.Fprintf(&gotObjects, "%s %s %s: %s", o.Owner, o.Kind, o.Name, o.Condition)
		if o.Reason != "" {
			fmt.Fprintf(&gotObjects, ": %s", o.Reason)
		}
		if o.Cure != "" {
			fmt.Fprintf(&gotObjects, " (%s)", o.Cure)
		}
		gotObjects.WriteString("\n")
	}
	for name, got := range map[string]string{"actions": gotActions.String(), "objects": gotObjects.String()} {
		if *update {
			i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == name })
			archive.Files[i].Data = []byte(got)
		} else if want := section(name); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func each(lines string, do func(words []string)) {
	for line := range strings.Lines(lines) {
		if words := strings.Fields(line); len(words) > 0 {
			do(words)
		}
	}
}

// parseLink reads `NAME KIND|- [up] [carrier] [noarp] mtu N [mark LAB,NODE]
// [was NAME] [id VNI dstport PORT local ADDRESS [learning]] [address MAC] [PREFIX...]`.
func parseLink(words []string) api.Link {
	link := api.Link{Name: words[0], Kind: strings.Trim(words[1], "-")}
	for i, w := range words {
		switch w {
		case "up":
			link.Up = true
		case "carrier":
			link.Carrier = true
		case "mtu":
			link.MTU, _ = strconv.Atoi(words[i+1])
		case "was": // the name that the lab gave it
			link.Alias = "labctl lab=study node=k8s-ctr interface=" + words[i+1]
		case "mark":
			lab, node, _ := strings.Cut(words[i+1], ",")
			link.Alias = fmt.Sprintf("labctl-agent lab=%s node=%s interface=%s", lab, node, link.Name)
		case "id":
			vni, _ := strconv.Atoi(words[i+1])
			link.VXLAN = &api.VXLAN{VNI: uint32(vni)}
		case "dstport":
			port, _ := strconv.Atoi(words[i+1])
			link.VXLAN.Port = uint16(port)
		case "local":
			link.VXLAN.Local = netip.MustParseAddr(words[i+1])
		case "learning":
			link.VXLAN.Learning = true
		case "address":
			link.MAC = words[i+1]
		}
		if p, err := netip.ParsePrefix(w); err == nil {
			link.Addresses = append(link.Addresses, p)
		}
	}
	return link
}

// parseRoute reads a line of `ip route`.
func parseRoute(t *testing.T, words []string) api.Route {
	r := api.Route{Type: "unicast", Scope: "global"}
	if slices.Contains([]string{"blackhole", "unreachable"}, words[0]) {
		r.Type, words = words[0], words[1:]
	}
	switch {
	case words[0] == "default":
		r.To = netip.MustParsePrefix("0.0.0.0/0")
	case strings.Contains(words[0], "/"):
		r.To = netip.MustParsePrefix(words[0])
	default:
		r.To = netip.PrefixFrom(netip.MustParseAddr(words[0]), 32)
	}
	for i := 1; i < len(words); i++ {
		hops := len(r.NextHops)
		switch words[i] {
		case "linkdown":
			r.NextHops[hops-1].LinkDown = true
			continue
		case "nexthop":
			continue
		case "onlink":
			r.NextHops[hops-1].OnLink = true
			continue
		}
		value := words[i+1]
		switch words[i] {
		case "via":
			r.NextHops = append(r.NextHops, api.NextHop{Via: netip.MustParseAddr(value)})
		case "dev":
			if hops == 0 || r.NextHops[hops-1].Device != "" {
				r.NextHops = append(r.NextHops, api.NextHop{})
			}
			r.NextHops[len(r.NextHops)-1].Device = value
		case "proto":
			for number := range 256 {
				if rtnl.ProtocolName(number) == value {
					r.Protocol, r.ProtocolName = number, value
				}
			}
		case "scope":
			r.Scope = value
		case "src":
			r.Source = netip.MustParseAddr(value)
		case "metric":
			r.Metric, _ = strconv.Atoi(value)
		case "mtu":
			r.MTU, _ = strconv.Atoi(value)
		default:
			t.Fatalf("route: %q?", words[i])
		}
		i++
	}
	return r
}

// parseDecision reads `TYPE [via GATEWAY] dev NAME` or `error WORDS...`.
func parseDecision(words []string) api.Decision {
	if words[0] == "error" {
		return api.Decision{Error: strings.Join(words[1:], " ")}
	}
	d := api.Decision{Type: words[0]}
	for i, w := range words {
		switch w {
		case "via":
			d.Via = netip.MustParseAddr(words[i+1])
		case "dev":
			d.Device = words[i+1]
		}
	}
	return d
}
