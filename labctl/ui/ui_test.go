package ui

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew")

var _ pflag.Value = (*FormatFlag)(nil)

// golden compares got with a section of testdata/<test>.txtar.
func golden(t *testing.T, section string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(t.Name(), "/", "_")+".txtar")
	archive, err := txtar.ParseFile(file)
	if err != nil {
		if !*update {
			t.Fatal(err)
		}
		archive = &txtar.Archive{}
	}
	for i, f := range archive.Files {
		if f.Name != section {
			continue
		}
		if !*update {
			if !bytes.Equal(f.Data, got) {
				t.Errorf("%s: %s\ngot:\n%s\nwant:\n%s", file, section, got, f.Data)
			}
			return
		}
		archive.Files[i].Data = got
		write(t, file, archive)
		return
	}
	if !*update {
		t.Fatalf("%s has no section %s", file, section)
	}
	archive.Files = append(archive.Files, txtar.File{Name: section, Data: got})
	write(t, file, archive)
}

func write(t *testing.T, file string, archive *txtar.Archive) {
	t.Helper()
	if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDuration(t *testing.T) {
	tests := map[time.Duration]string{
		-time.Second:               "0.00s",
		0:                          "0.00s",
		78 * time.Millisecond:      "0.08s",
		994 * time.Millisecond:     "0.99s",
		996 * time.Millisecond:     "1.0s",
		1440 * time.Millisecond:    "1.4s",
		59940 * time.Millisecond:   "59.9s",
		59960 * time.Millisecond:   "1m00s",
		123 * time.Second:          "2m03s",
		3599600 * time.Millisecond: "1h00m",
		62 * time.Minute:           "1h02m",
	}
	for d, want := range tests {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	tests := []struct {
		n          int
		noun, want string
	}{
		{1, "node", "1 node"},
		{0, "node", "0 nodes"},
		{4, "address", "4 addresses"},
		{2, "topology", "2 topologies"},
		{2, "gateway", "2 gateways"},
		{2, "check", "2 checks"},
		{2, "prefix", "2 prefixes"},
	}
	for _, tt := range tests {
		if got := Plural(tt.n, tt.noun); got != tt.want {
			t.Errorf("Plural(%d, %s) = %s, want %s", tt.n, tt.noun, got, tt.want)
		}
	}
}

func TestFormatFlag(t *testing.T) {
	out := NewFormat(Table, JSON, JUnit)
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.VarP(out, "output", "o", out.Usage())
	if out.Format != Table {
		t.Errorf("default is %s", out.Format)
	}
	if err := flags.Parse([]string{"-o", "junit"}); err != nil || out.Format != JUnit {
		t.Errorf("-o junit: %v, %v", out.Format, err)
	}
	err := flags.Parse([]string{"-o", "yaml"})
	want := `invalid argument "yaml" for "-o, --output" flag: unknown format "yaml": want table, json or junit`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if out.Format != JUnit {
		t.Errorf("a refused format changed the flag to %s", out.Format)
	}
	if usage := flags.FlagUsages(); !strings.Contains(usage, "-o, --output format   how to print the result: table, json or junit (default table)") {
		t.Errorf("usage: %s", usage)
	}
}

type result struct {
	Lab   string   `json:"lab"`
	Nodes []string `json:"nodes,omitempty"`
	Note  string   `json:"someNote"`
}

type reported struct{ result }

func (reported) WriteJUnit(w io.Writer) error {
	_, err := io.WriteString(w, "<testsuite/>\n")
	return err
}

func TestWrite(t *testing.T) {
	value := result{Lab: "native-routing", Nodes: []string{"k8s-ctr", "router"}, Note: "a < b && c"}
	grid := NewGrid("NODE")
	for _, n := range value.Nodes {
		grid.Row(n)
	}
	for _, f := range []Format{Table, JSON, YAML} {
		var b bytes.Buffer
		if err := Write(&b, f, value, grid.Write); err != nil {
			t.Fatal(err)
		}
		golden(t, string(f), b.Bytes())
	}
	var b bytes.Buffer
	if err := Write(&b, JUnit, reported{value}, grid.Write); err != nil {
		t.Fatal(err)
	}
	golden(t, "junit", b.Bytes())
	if err := Write(&b, JUnit, value, grid.Write); err == nil {
		t.Error("a value without a JUnit report was written as one")
	}
}

func TestGrid(t *testing.T) {
	colour := Style{colour: true}
	g := NewGrid("NODE", "STATE", "ADDRESS", "")
	g.Row("k8s-ctr", colour.Good("up"), "192.168.10.100/24")
	g.Row("路由器", colour.Bad("down"), "", "has\na\tbreak")
	g.Row("r")
	g.Row()
	g.Row("k8s-w0", "up", "192.168.20.100/24", "x", "beyond the header")
	if g.Len() != 5 {
		t.Errorf("Len is %d", g.Len())
	}
	var b bytes.Buffer
	if err := g.Write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "coloured", []byte(strings.ReplaceAll(b.String(), "\x1b", "ESC")))

	plain := NewGrid()
	plain.Indent = "  "
	plain.Row("try", "labctl status")
	plain.Row("or try", "labctl down")
	b.Reset()
	if err := plain.Write(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "without a header", b.Bytes())
}

func TestStyle(t *testing.T) {
	var b bytes.Buffer
	if s := NewStyle(&b, func(string) string { return "" }); s.Bad("x") != "x" {
		t.Error("colours in a buffer")
	}
	s := Style{colour: true}
	if got, want := s.Bold("a"+s.Good("b")+"c"), "\x1b[1ma\x1b[32mb\x1b[39mc\x1b[22m"; got != want {
		t.Errorf("nested: %q", got)
	}
	if s.Warn("") != "" {
		t.Error("nothing is coloured")
	}
}

func TestPlainProgress(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, Plain)
	now := time.Unix(0, 0)
	p.Now = func() time.Time { return now }
	story(p, func(d time.Duration) { now = now.Add(d) })
	golden(t, "stderr", b.Bytes())
}

func TestQuietProgress(t *testing.T) {
	var b bytes.Buffer
	story(NewProgress(&b, Quiet), func(time.Duration) {})
	if b.Len() > 0 {
		t.Errorf("told: %s", b.String())
	}
}

// story is a workflow with every kind of ending. It sleeps by the caller's clock.
func story(p *Progress, sleep func(time.Duration)) {
	networks := p.Start("networks")
	sleep(12 * time.Millisecond)
	networks.Done("")
	networks.Done("a second end")
	nodes := p.Start("nodes")
	nodes.Update("k8s-ctr")
	sleep(80 * time.Millisecond)
	nodes.Done("4 created")
	p.Note("no dummy driver: loop1 and loop2 are ifb devices")
	agents := p.Start("agents")
	routes := p.Start("a step with a rather long name")
	sleep(1300 * time.Millisecond)
	routes.Fail(nil)
	agents.Fail(errors.New("start agent on \x1b[31mrouter\x1b[0m:\tconnection refused\nsecond line"))
	last := p.Start("verify")
	last.Update("12 of 40\r\n")
	sleep(time.Minute)
	p.Close()
	last.Done("too late")
	p.Start("also too late").Done("")
	p.Note("also too late")
	p.Close()
}
