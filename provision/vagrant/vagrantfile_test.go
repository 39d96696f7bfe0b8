package vagrant

import (
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

func load(t *testing.T, name string) *topo.Topology {
	t.Helper()
	l, err := topo.LoadFile("../../topologies/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rendered is what each golden file holds.
func rendered(t *testing.T) map[string][]byte {
	t.Helper()
	management := netip.MustParsePrefix("192.168.130.0/24")
	files := map[string][]byte{}
	for _, f := range []struct {
		name, topology, provider string
		hostOnly, emulated       bool
		stale                    []string
	}{
		{"native-routing.virtualbox", "native-routing", VirtualBox, false, false, nil},
		{"native-routing.virtualbox-host-only", "native-routing", VirtualBox, true, false, nil},
		{"native-routing.libvirt", "native-routing", Libvirt, false, false, nil},
		{"router-chain.libvirt-emulated", "router-chain", Libvirt, false, true, []string{"k8s-old"}},
	} {
		l := load(t, f.topology)
		if f.topology == "router-chain" {
			l.Networks[0].Value.MTU = 9000
		}
		v := describe(l, settings{Provider: f.provider, HostOnly: f.hostOnly, Management: management}, f.emulated)
		v.Stale = f.stale
		text, err := v.render()
		if err != nil {
			t.Fatal(err)
		}
		files[f.name] = text
	}
	return files
}

func TestVagrantfile(t *testing.T) {
	for name, got := range rendered(t) {
		path := filepath.Join("testdata", name+".Vagrantfile")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// TestVagrantTakesTheVagrantfile asks vagrant itself. VirtualBox need not be
// here: a VBoxManage that tells a version is enough for Vagrant to check the
// settings of the provider block.
func TestVagrantTakesTheVagrantfile(t *testing.T) {
	vagrant := needs(t, "vagrant")
	bin, home := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "VBoxManage"), []byte("#!/bin/sh\necho 7.0.14r161095\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := rendered(t)
	delete(files, "native-routing.libvirt") // what it has is in the emulated one too
	delete(files, "native-routing.virtualbox-host-only")
	files["wrong.virtualbox"] = []byte(strings.Replace(string(files["native-routing.virtualbox"]), "machine.cpus", "machine.processors", 1))
	for name, text := range files {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			provider, _, _ := strings.Cut(name[strings.Index(name, ".")+1:], "-")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Vagrantfile"), text, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(vagrant, "validate")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "VAGRANT_HOME="+home,
				"VAGRANT_DEFAULT_PROVIDER="+provider, "VAGRANT_CHECKPOINT_DISABLE=1")
			out, err := cmd.CombinedOutput()
			if strings.HasPrefix(name, "wrong") {
				if !strings.Contains(string(out), "processors") {
					t.Errorf("a setting that there is not went through: %v\n%s", err, out)
				}
				return
			}
			if err != nil || !strings.Contains(string(out), "validated successfully") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// needs finds a program that comes with Vagrant. It is there where the tests of
// everything run, and those count a skip as a failure.
func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("no %s here (apt-get install vagrant vagrant-libvirt)", program)
	}
	return path
}

var quotable = []string{
	"", "k8s-ctr", "it's", `\`, `\\`, `\'`, `'`, "''", `a\`, `\'; system('id'); '`, "#{system('id')}", `#$0`, `#@x`, "`id`", "$(id)",
	"%q(x)", "__END__", "=begin", "äöü", "네트워크", "\u202e", "\ufeff", "'+`id`+'", `"`, "a b", "?", "\U0001f600",
}

func TestQuoteRefusesWhatRubyReadsOtherwise(t *testing.T) {
	for _, s := range []string{"a\nb", "a\r\nb", "\x00", "\x04", "\x1a", "\x7f", "\u0085", "\xff", "a\xc3"} {
		if got, err := quote(s); err == nil {
			t.Errorf("quote(%q) = %s", s, got)
		}
	}
}

// TestRubyReadsWhatWasQuoted has ruby print each literal's bytes.
func TestRubyReadsWhatWasQuoted(t *testing.T) {
	ruby := needs(t, "ruby")
	all := append([]string{}, quotable...)
	const pieces = `\'"#{}$@%()` + "`é한\u202e ab"
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var s []rune
		for range random.IntN(12) {
			s = append(s, []rune(pieces)[random.IntN(len([]rune(pieces)))])
		}
		all = append(all, string(s))
	}
	var script strings.Builder
	var want []string
	for _, s := range all {
		literal, err := quote(s)
		if err != nil {
			continue
		}
		fmt.Fprintf(&script, "puts %s.unpack1('H*')\n", literal)
		want = append(want, hex.EncodeToString([]byte(s)))
	}
	cmd := exec.Command(ruby, "-")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.TrimSuffix(string(out), "\n")); diff != "" {
		t.Errorf("ruby read (-want +got):\n%s", diff)
	}
}

// FuzzQuote: what is quoted is one literal, whose content is what was given, by
// Ruby's rules for single quotes: \\ and \' are one character each.
func FuzzQuote(f *testing.F) {
	for _, s := range quotable {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		literal, err := quote(s)
		if err != nil {
			return
		}
		var got strings.Builder
		rest, ok := strings.CutPrefix(literal, "'")
		for ok && !strings.HasPrefix(rest, "'") && rest != "" {
			if strings.HasPrefix(rest, `\\`) || strings.HasPrefix(rest, `\'`) {
				rest = rest[1:]
			}
			got.WriteByte(rest[0])
			rest = rest[1:]
		}
		if rest != "'" || got.String() != s {
			t.Errorf("%q is quoted as %s", s, literal)
		}
	})
}

// TestNoValueBreaksOut renders a topology that no loader would let through.
func TestNoValueBreaksOut(t *testing.T) {
	const evil = `'; system('touch pwned') #{exit} \`
	l := load(t, "native-routing")
	l.Metadata.Name = evil
	l.Providers.Vagrant.Box, l.Providers.Vagrant.BoxVersion, l.Providers.Vagrant.Provider = evil, evil, evil
	for i := range l.Nodes {
		l.Nodes[i].Name = evil
		for j := range l.Nodes[i].Value.Interfaces {
			l.Nodes[i].Value.Interfaces[j].Value.Network = evil
		}
	}
	for _, provider := range []string{VirtualBox, Libvirt, evil} {
		text, err := describe(l, settings{Provider: provider}, true).render()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			outside := outsideLiterals(line)
			if strings.Contains(outside, "system") || strings.Contains(outside, "exit") {
				t.Errorf("%s: %s", provider, line)
			}
		}
	}
	l.Metadata.Name = "a\nb"
	if _, err := describe(l, settings{Provider: Libvirt}, true).render(); err == nil {
		t.Error("a line break went through")
	}
}

// outsideLiterals is what of a line Ruby reads as its own.
func outsideLiterals(line string) string {
	var outside strings.Builder
	inside := false
	for i := 0; i < len(line); i++ {
		switch {
		case inside && line[i] == '\\':
			i++
		case line[i] == '\'':
			inside = !inside
		case !inside:
			outside.WriteByte(line[i])
		}
	}
	return outside.String()
}
