package topo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

const hostileHead = "apiVersion: labctl/v1\nkind: Topology\nmetadata: {name: lab}\n"

// fill repeats what line makes until the file is almost as large as it may be.
func fill(head string, line func(i int) string) string {
	return fillTo((maxFile-100)/slowness, head, line)
}

// fillTo repeats what line makes as long as the file stays below size bytes.
func fillTo(size int, head string, line func(i int) string) string {
	var b strings.Builder
	b.WriteString(head)
	for i := 0; ; i++ {
		next := line(i)
		if b.Len()+len(next) > size {
			return b.String()
		}
		b.WriteString(next)
	}
}

func repeat(text string) func(int) string { return func(int) string { return text } }

// octets is 24 bits of i as the end of an address.
func octets(i int) string { return fmt.Sprintf("%d.%d.%d", i>>16&0xff, i>>8&0xff, i&0xff) }

// hostileFiles are as large as Load takes them (under the race detector, as much
// smaller as it is slower), and made to be slow.
func hostileFiles() map[string]string {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 30; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 8), i-1)
	}
	x := "  x:\n    role: host\n    interfaces:\n"
	manyRoutes := fillTo(maxFile/2/slowness, "[", repeat("{to: 10.0.0.0/8, via: 192.168.10.200}, ")) + "]"
	return map[string]string{
		"alias bomb":          hostileHead + bomb,
		"alias bomb of lists": hostileHead + strings.Replace(bomb, "a0: &a0", "workloads: &a0", 1) + "stages: {s: {expect: [*a29, *a0]}}\n",
		"alias bomb in nodes": fill(hostileHead+"networks: {}\nnodes:\n  a: &a\n    role: host\n    interfaces: {}\n    routes: &r "+manyRoutes+"\n", func(i int) string { return fmt.Sprintf("  n%d: *a\n", i) }),
		"alias bomb in hops":  fill(fillTo(maxFile/2/slowness, hostileHead+"networks: {}\nnodes:\n  a:\n    role: host\n    interfaces: {}\n    routes:\n      - {to: 10.0.0.0/8, via: &v [", repeat("192.168.10.200,"))+"1.1.1.1]}\n", func(i int) string { return fmt.Sprintf("      - {to: 10.%s/32, via: *v}\n", octets(i)) }),
		"brackets":            fill("", repeat("[")),
		"braces":              fill("", repeat("{a: ")),
		"dashes":              fill("", repeat("- ")),
		"question marks":      fill("", repeat("? ")),
		"deep blocks":         fill("", func(i int) string { return strings.Repeat(" ", i) + "a:\n" }),
		"comments":            fill("", repeat("# x\n")),
		"comments and keys":   fill("", func(i int) string { return fmt.Sprintf("# x\nk%d: 1 # y\n", i) }),
		"blank lines":         fill("", repeat("\n")),
		"long scalar":         fill("apiVersion: ", repeat("x")),
		"quoted backslashes":  fill(`apiVersion: "`, repeat(`\\`)) + `"`,
		"long key":            fill("", repeat("k")) + ": 1",
		"unknown keys":        fill("", func(i int) string { return fmt.Sprintf("apiVersio%d: x\n", i) }),
		"same key":            fill("", repeat("kind: Topology\n")),
		"anchors":             fill("", func(i int) string { return fmt.Sprintf("- &a%d x\n", i) }),
		"documents":           fill("", repeat("---\n")),
		"tags":                fill("", repeat("!a !b\n")),
		"directives":          fill("", repeat("%TAG !e! tag:e,1:\n")),
		"networks that overlap": fill(hostileHead+"nodes: {}\nnetworks:\n", func(i int) string {
			return fmt.Sprintf("  n%d: {cidr: 11.0.0.0/8}\n", i)
		}),
		"networks": fill(hostileHead+"nodes: {a: {role: host, interfaces: {}}}\nnetworks:\n", func(i int) string {
			return fmt.Sprintf("  n%d: {cidr: 11.%s/32}\n", i, octets(i))
		}),
		"interfaces": fill(hostileHead+"networks: {n: {cidr: 11.0.0.0/8}}\nnodes:\n"+x, func(i int) string {
			return fmt.Sprintf("      e%d: {network: n, address: 11.%s/8}\n", i, octets(i+1))
		}),
		"unknown networks": fill(hostileHead+"networks: {n: {cidr: 11.0.0.0/8}}\nnodes:\n"+x, func(i int) string {
			return fmt.Sprintf("      e%d: {network: n%d, address: 11.%s/8}\n", i, i, octets(i+1))
		}),
		"next hops": fill(fillTo(maxFile/2/slowness, hostileHead+"networks: {n: {cidr: 11.0.0.0/8}}\nnodes:\n"+x, func(i int) string {
			return fmt.Sprintf("      e%d: {type: dummy, address: 12.%s/32}\n", i, octets(i))
		})+"      eth1: {network: n, address: 11.0.0.1/8}\n    routes:\n", func(i int) string {
			return fmt.Sprintf("      - {to: 12.%s/32, via: 13.0.0.1}\n", octets(i))
		}),
		"stages": fill(hostileHead+"networks: {}\nnodes: {a: {role: host, interfaces: {}}}\nstages:\n", func(i int) string {
			return fmt.Sprintf("  s%d: {nodes: {a: {routes: [{to: 12.0.0.0/8, via: 13.0.0.1}]}}}\n", i)
		}),
		"nodes": fill(hostileHead+"networks: {}\nnodes:\n", func(i int) string {
			return fmt.Sprintf("  n%d: {role: host, interfaces: {}}\n", i)
		}) + "  localhost: {role: host, interfaces: {}}\n",
	}
}

// patience is many times what the slowest file takes on an idle machine.
const patience = 10 * time.Second

// TestHostileFiles: each is an error within seconds, on a busy machine too, and in bounded memory.
func TestHostileFiles(t *testing.T) {
	for name, text := range hostileFiles() {
		t.Run(name, func(t *testing.T) {
			load := func() error {
				_, err := Load("lab.yaml", strings.NewReader(text))
				return err
			}
			took, allocated, err := measure(load)
			if took > patience { // a busy machine; a file that is slow is slow again
				took, allocated, err = measure(load)
			}
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Load = %v, want mistakes", err)
			}
			t.Logf("%d bytes: %s, %d MiB: %.200s", len(text), took, allocated>>20, err)
			if len(err.Error()) > 1<<20 {
				t.Errorf("the report has %d bytes", len(err.Error()))
			}
			if took > patience {
				t.Errorf("it took %s", took)
			}
			if allocated > 512<<20 {
				t.Errorf("it allocated %d MiB", allocated>>20)
			}
		})
	}
}

// measure returns what do takes: time, and all bytes that it ever allocates.
func measure(do func() error) (time.Duration, uint64, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := do()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc, err
}

// endless is a file without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	e.read += len(p)
	return len(p), nil
}

// TestHugeFile: of a file that is too large, little more than the limit is read.
func TestHugeFile(t *testing.T) {
	file := new(endless)
	took, allocated, err := measure(func() error {
		_, err := Load("lab.yaml", io.LimitReader(file, 100<<20))
		return err
	})
	const want = "lab.yaml:1:1: the file is larger than 1024 KiB; a topology is a few KiB: is this the right file?"
	if err == nil || err.Error() != want {
		t.Errorf("Load = %v, want %s", err, want)
	}
	if file.read > 2*maxFile || allocated > 16<<20 || took > patience {
		t.Errorf("it read %d bytes, allocated %d and took %s", file.read, allocated, took)
	}
}

func TestIllegibleFiles(t *testing.T) {
	for _, tc := range []struct{ name, file, want string }{
		{"NUL", "apiVersion: labctl/v1\nkind: \x00", "lab.yaml:2:7: character U+0000 is not allowed in YAML; take it out"},
		{"escape", "é\x1b[31m", "lab.yaml:1:2: character U+001B is not allowed in YAML; take it out"},
		{"invalid UTF-8", "a: b\nname: \xff\xfe", "lab.yaml:2:7: byte 0xff is no UTF-8; save the file as UTF-8"},
		{"half a character", "a: \xe2\x82", "lab.yaml:1:4: byte 0xe2 is no UTF-8; save the file as UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "lab.yaml:1:1: byte 0xff is no UTF-8; save the file as UTF-8"},
		{"text that turns round", "a: \u202e", "lab.yaml:1:4: character U+202E is not allowed in YAML; take it out"},
		{"gzip", "\x1f\x8b\x08", "lab.yaml:1:1: character U+001F is not allowed in YAML; take it out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load("lab.yaml", strings.NewReader(tc.file))
			if err == nil || err.Error() != tc.want {
				t.Errorf("Load = %v\nwant   %s", err, tc.want)
			}
		})
	}
}

// TestReportIsLegible: nothing that a terminal would obey, and no NUL, gets
// from a file into the report of its mistakes.
func TestReportIsLegible(t *testing.T) {
	hostile := `"\e]0;title\a\0\x9b31m\u202e;$(x)"`
	file := strings.ReplaceAll(`apiVersion: X
kind: X
metadata: {name: X, X: 1}
requires: {kernel: X}
networks: {X: {cidr: X}}
nodes:
  X:
    role: X
    podCIDR: X
    interfaces: {X: {network: X, address: X, mtu: X, type: X}}
    routes: [{to: X, via: X}]
workloads: [X]
providers: {vagrant: {box: X, provider: X}}
stages: {X: {nodes: {X: {}}, expect: [{from: {podsOn: [X]}, to: {nodes: [X]}, result: X, at: X, leaving: X}]}}
`, "X", hostile)
	_, err := Load("lab.yaml", strings.NewReader(file))
	if err == nil || strings.Count(err.Error(), "\n") < 20 {
		t.Fatalf("Load = %v, want many mistakes", err)
	}
	for _, r := range err.Error() {
		if r != '\n' && (r < ' ' || r == 0x7f || r == 0x9b || r == '\u202e') {
			t.Fatalf("the report holds %U:\n%q", r, err)
		}
	}
}

func TestManyMistakesAreCutShort(t *testing.T) {
	file := hostileFiles()["unknown keys"]
	_, err := Load("lab.yaml", bytes.NewReader([]byte(file)))
	var mistakes Errors
	if !errors.As(err, &mistakes) || len(mistakes) != maxMistakes+1 {
		t.Fatalf("%d mistakes, want %d", len(mistakes), maxMistakes+1)
	}
	if last := mistakes[maxMistakes]; last.Wrong != "the file has more than 1000 mistakes" {
		t.Errorf("the last one is %v", last)
	}
}
