package vagrant

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

func TestFreeRange(t *testing.T) {
	l := load(t, "native-routing")
	first, err := freeRange(l, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := freeRange(l, nil)
	next, _ := freeRange(l, []netip.Prefix{netip.PrefixFrom(first.Addr().Next(), 30)})
	if first != again || next == first || next.Overlaps(first) {
		t.Errorf("%v, again %v, beside it %v", first, again, next)
	}
	l.Networks[0].Value.CIDR = netip.MustParsePrefix("192.168.0.0/16")
	if _, err := freeRange(l, nil); !errors.Is(err, ErrNetwork) {
		t.Errorf("all is taken: %v", err)
	}
}

func TestHardwareAddressesAreEachsOwn(t *testing.T) {
	l := load(t, "native-routing")
	seen := map[string]bool{}
	for _, provider := range []string{VirtualBox, Libvirt} {
		for node, ifaces := range hardwareAddresses(l, provider) {
			for name, address := range ifaces {
				if seen[address.String()] || len(address) != 6 || address[0]&1 != 0 {
					t.Errorf("%s %s: %s", node, name, address)
				}
				seen[address.String()] = true
			}
		}
	}
	if got := devices(l, Libvirt, "router"); len(got) != 2 || !strings.HasPrefix(got["eth2"], "52:54:00:") {
		t.Errorf("the router's devices: %v (its dummies are no devices)", got)
	}
}

func TestAllowedRanges(t *testing.T) {
	l := load(t, "native-routing")
	for text, want := range map[string]string{
		"": "192.168.10.0/24 192.168.20.0/24",
		"# * 192.168.0.0/16\n* 10.0.0.0/8 192.168.10.0/24\n":   "192.168.20.0/24",
		"* 192.168.10.0/24 192.168.20.0/24\n* 2001::/64\njunk": "",
		"*0.0.0.0/0":                        "",
		"* 192.168.10.0/25 192.168.20.0/23": "192.168.10.0/24",
	} {
		if got := strings.Join(outside(l, allowedRanges(text, true)), " "); got != want {
			t.Errorf("%q refuses %q, want %q", text, got, want)
		}
	}
	if got := outside(l, allowedRanges("", false)); len(got) != 2 {
		t.Errorf("without the file: %q", got)
	}
}

func TestLabOf(t *testing.T) {
	for name, want := range map[string]string{
		"labctl-study_router": "study", "labctl-a-b_c": "a-b", "labctl-study_": "study", "labctl-study": "",
		"labctl-_x": "", "labctl-ÄÖ_x": "", "other_router": "", "": "",
	} {
		if got, ok := labOf(name); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", name, got, ok)
		}
	}
}

func TestJudgeMemory(t *testing.T) {
	l := load(t, "native-routing") // 6400 MiB
	for _, test := range []struct {
		total, available uint64
		up               bool
		want             provision.Severity
	}{
		{16 << 30, 12 << 30, false, provision.Fine},
		{16 << 30, 2 << 30, false, provision.Warning},
		{16 << 30, 2 << 30, true, provision.Fine},
		{4 << 30, 4 << 30, false, provision.Missing},
	} {
		if f := judgeMemory(l, test.total, test.available, test.up); f.Severity != test.want || f.Severity != provision.Fine && f.Cure == "" {
			t.Errorf("%+v: %+v", test, f)
		}
	}
}

func TestPreflight(t *testing.T) {
	for provider, want := range map[string][]string{
		VirtualBox: {"vagrant", "box", "memory", "disk", "VirtualBox"},
		Libvirt:    {"vagrant", "box", "memory", "disk", "libvirt", "KVM", "virsh", "vagrant-libvirt"},
	} {
		s := newStage(t, provider)
		var got []string
		for _, f := range s.Preflight(t.Context(), load(t, "native-routing")) {
			got = append(got, f.Subject)
			if f.Severity != provision.Fine && f.Cure == "" {
				t.Errorf("no cure for %+v", f)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", provider, got)
		}
	}
	l := load(t, "native-routing")
	l.Requires.Vagrant = ">= 99"
	var unmet *topo.Unmet
	if findings := newStage(t, VirtualBox).Preflight(t.Context(), l); !slices.ContainsFunc(findings, func(f provision.Finding) bool { return errors.As(f.Err, &unmet) }) {
		t.Errorf("%+v", findings)
	}
}

func TestHostOnlyIsKept(t *testing.T) {
	s := newStage(t, VirtualBox)
	s.options.HostOnly = true
	s.wantUp(study(t))
	s.restart(VirtualBox) // no command but up has the flag
	if _, err := s.Halt(t.Context(), "study", "router"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), study(t), "router"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.options.paths("study").vagrantfile())
	if err != nil || !strings.Contains(string(text), "private_network") || strings.Contains(string(text), "intnet") {
		t.Errorf("the networks became others: %v\n%s", err, text)
	}
	if !slices.ContainsFunc(s.Preflight(t.Context(), study(t)), func(f provision.Finding) bool { return f.Subject == "host-only networks" }) {
		t.Error("preflight does not look at their ranges")
	}

	s = newStage(t, VirtualBox)
	s.wantUp(study(t))
	s.options.HostOnly = true
	if _, err := s.prepare(t.Context(), study(t)); err == nil || !strings.Contains(err.Error(), "stands on internal networks, not on host-only ones: take it down first (labctl down --lab study)") {
		t.Errorf("asked for afterwards: %v", err)
	}
}

func TestManagementRangeGivesWay(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	first, err := s.prepare(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	l.Networks[0].Value.CIDR = first.Management
	second, err := s.prepare(t.Context(), l)
	if err != nil || second.Management.Overlaps(first.Management) {
		t.Fatalf("before a machine is made: %v, then %v, %v", first.Management, second.Management, err)
	}
	s.wantUp(l)
	l.Networks[0].Value.CIDR = second.Management
	if _, err := s.prepare(t.Context(), l); !errors.Is(err, ErrNetwork) || !strings.Contains(err.Error(), "(labctl down --lab study, then labctl up)") {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAnyNameOfADataDir(t *testing.T) {
	s := newStage(t, Libvirt)
	s.dataDir = filepath.Join(s.dataDir, "a[b]?*")
	s.restart(Libvirt)
	s.wantUp(study(t))
	if labs := s.options.stored(); !slices.Equal(labs, []string{"study"}) {
		t.Errorf("labs: %q", labs)
	}
	if o, err := s.Observe(t.Context(), "study"); err != nil || len(o.Nodes) != 4 || stateIn(o, "router") != provision.NodeRunning {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestVirshIsNeeded(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if f := lookAtVirsh(); f.Severity != provision.Missing || f.Cure != cureVirsh {
		t.Errorf("%+v", f)
	}
}

func TestJudgeLibvirt(t *testing.T) {
	f := judgeLibvirt(t.Context(), t.TempDir()+"/none")
	if len(f) != 1 || !errors.Is(f[0].Err, ErrLibvirt) || f[0].Cure != cureLibvirt {
		t.Error(fmt.Sprint(f))
	}
}
