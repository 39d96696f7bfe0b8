package machine

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write what is found into the golden files")

// TestPlan holds each testdata/plan/*.txtar: a topology, what was seen of a machine
// that is to be its first node, and all that is to be done. In what was seen, facts
// are lines of look.sh, a file named like a fact is its text, and other files are
// the machine's.
func TestPlan(t *testing.T) {
	paths, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := len(archive.Files) - 1
			for want >= 0 && archive.Files[want].Name != "want" {
				want--
			}
			inputs := archive.Files
			if want >= 0 {
				inputs = archive.Files[:want]
			}
			got := planText(t, inputs)
			if *update {
				archive.Files = append(inputs, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want < 0 {
				t.Fatal("it has no want (run with -update)")
			}
			if diff := cmp.Diff(string(archive.Files[want].Data), got); diff != "" {
				t.Errorf("not as the file wants it (-want +got):\n%s", diff)
			}
		})
	}
}

func planText(t *testing.T, inputs []txtar.File) string {
	t.Helper()
	lab, err := topo.Load("lab.yaml", bytes.NewReader(inputs[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSeen(lookText(t, inputs[1:]), testMark)
	if err != nil {
		t.Fatal(err)
	}
	name := lab.Nodes.Names()[0]
	node, _ := lab.Nodes.Get(name)
	w := want{topology: lab, lab: lab.Metadata.Name, name: name, node: node,
		key: keyPair{"PRIVATE\n", "ssh-ed25519 PUBLIC"}, hostKeys: map[string][]string{name: s.hostKeys()}}
	if inventory := lab.Providers.SSH; inventory != nil {
		m, _ := inventory.Nodes.Get(name)
		w.access.Devices = map[string]string{}
		for iface, device := range m.Interfaces.All() {
			w.access.Devices[iface] = string(device)
		}
	}
	var b strings.Builder
	if err := s.fit(); err != nil {
		fmt.Fprintln(&b, "unfit:", err)
	}
	for _, remark := range s.remarks() {
		fmt.Fprintln(&b, "remark:", remark)
	}
	fmt.Fprintf(&b, "uplink: %+v\n", s.uplink())
	for _, p := range append(phases(), phase{"known hosts", planKnown}) {
		todo, err := p.plan(w, s)
		fmt.Fprintf(&b, "\n== %s\n", p.name)
		if err != nil {
			fmt.Fprintln(&b, "error:", err)
			break
		}
		b.WriteString(todoText(t, todo))
	}
	fmt.Fprintf(&b, "\n== clean\n%s", todoText(t, planClean(w.lab, w.name, s)))
	return b.String()
}

func todoText(t *testing.T, todo todo) string {
	t.Helper()
	var b strings.Builder
	for _, c := range todo.changes {
		fmt.Fprintln(&b, c)
	}
	for _, step := range todo.steps {
		b.WriteString(readable(t, step))
	}
	return b.String()
}

// readable is a step with its content decoded, below it.
func readable(t *testing.T, step string) string {
	t.Helper()
	words := strings.Split(step, "\t")
	at := map[string]int{"put": 4, "claim": 2, "feed": 1}[words[0]]
	if at == 0 || at >= len(words) {
		return "  " + strings.Join(words, " ") + "\n"
	}
	content, err := base64.StdEncoding.DecodeString(words[at])
	if err != nil {
		t.Fatal(err)
	}
	words = append(words[:at:at], words[at+1:]...)
	text := "  " + strings.Join(words, " ") + "\n"
	for line := range strings.Lines(string(content)) {
		text += "    | " + strings.TrimSuffix(line, "\n") + "\n"
	}
	return text
}

// testMark ends the texts in what look.sh would print.
const testMark = "MARK"

// lookText is what look.sh would print.
func lookText(t *testing.T, inputs []txtar.File) []byte {
	t.Helper()
	var b, files bytes.Buffer
	archive := tar.NewWriter(&files)
	for _, f := range inputs {
		switch {
		case f.Name == "facts":
			b.Write(f.Data)
		case !strings.HasPrefix(f.Name, "/"):
			fmt.Fprintf(&b, "%s\n%s\n%s\n", f.Name, f.Data, testMark)
		default:
			if err := archive.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			if _, err := archive.Write(f.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "files\n%s\n%s\nend\t.\n", files.Bytes(), testMark)
	return b.Bytes()
}

func TestParseSeenRefuses(t *testing.T) {
	for _, text := range []string{
		"", "system\tLinux\n", "links\n!!!\nMARK\nend\t.\n", "links\n{}\nMARK\nend\t.\n", "links\n[]\nend\t.\n",
		"account\troot\nend\t.\n", "end\t.\nsystem\tLinux\n",
		"account\ta:x:1:1::/home/a b:/bin/sh\nend\t.\n", "account\ta:x:1:1::/home/*:/bin/sh\nend\t.\n", "account\ta:x:1:1::/home/a\tc:/bin/sh\nend\t.\n", "files\nAAAA\nMARK\nend\t.\n", "files\n",
	} {
		if _, err := parseSeen([]byte(text), testMark); err == nil {
			t.Errorf("%q was understood", text)
		}
	}
}

func TestKernelFrom(t *testing.T) {
	for kernel, want := range map[string]bool{
		"5.15.0-91-generic": false, "5.16.0": true, "6.1.0-50-cloud-amd64": true, "4.19.0": false, "6.18.44-fc": true, "": false, "x": false,
	} {
		if got := (seen{Kernel: kernel}).kernelFrom(egressMajor, egressMinor); got != want {
			t.Errorf("%q: %t", kernel, got)
		}
	}
}

func TestHostsBlock(t *testing.T) {
	const found = "127.0.0.1 localhost\n127.0.1.1 a a.example.org\n::1 ip6-localhost\n"
	names := []string{"a", "b"}
	with := withBlock(found, "lab", "192.168.10.100 a\n", names)
	want := "# labctl: begin of lab lab\n192.168.10.100 a\n# labctl: end\n127.0.0.1 localhost\n# labctl: off 127.0.1.1 a a.example.org\n::1 ip6-localhost\n"
	if with != want {
		t.Errorf("with our lines:\n%s", with)
	}
	if again := withBlock(with, "lab", "192.168.10.100 a\n", names); again != with {
		t.Errorf("once more:\n%s", again)
	}
	if without := withoutBlock(with); without != found {
		t.Errorf("without them:\n%s", without)
	}
	// Somebody removed the end: nothing of theirs is taken for ours.
	if got := withoutBlock("# labctl: begin of lab lab\n10.0.0.1 x\n127.0.0.1 localhost\n"); got != "10.0.0.1 x\n127.0.0.1 localhost\n" {
		t.Errorf("a block without an end:\n%s", got)
	}
}

func TestUnitWords(t *testing.T) {
	if got, want := unitWords([]string{"/a b", `c"d`, "50%", "$HOME"}), `"/a b" "c\"d" "50%%" "$$HOME"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDeviceUnit(t *testing.T) {
	for device, want := range map[string]string{"eth0": "eth0", "enp1s0.10": "enp1s0.10", "br-lan": `br\x2dlan`} {
		if got := deviceUnit(device); got != "sys-subsystem-net-devices-"+want+".device" {
			t.Errorf("%s: %s", device, got)
		}
	}
}

// TestUnit holds testdata/agent.service, the unit of an agent.
func TestUnit(t *testing.T) {
	n := &Node{lab: "lab", name: "router", pins: "/sys/fs/bpf/labctl-node"}
	d := daemon{node: n, name: "agent", argv: []string{dir + "/agent", "--run", runDir}}
	steps := d.begin(standing{}, d.text("17:1.5"), true).steps
	words := strings.Split(steps[0], "\t")
	got, err := base64.StdEncoding.DecodeString(words[4])
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/agent.service", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/agent.service")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("the unit (-want +got):\n%s", diff)
	}
}
