package graph

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/topologies/topo"
)

var update = flag.Bool("update", false, "write the golden files anew")

// eachLab runs test for every lab of testdata: an archive with the lab as JSON
// and all that is drawn of it.
func eachLab(t *testing.T, test func(t *testing.T, lab *topo.Topology)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no labs in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			test(t, readLab(t, file))
		})
	}
}

func readLab(t *testing.T, file string) *topo.Topology {
	t.Helper()
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lab := &topo.Topology{}
	if err := json.Unmarshal(archive.Files[0].Data, lab); err != nil {
		t.Fatal(err)
	}
	return lab
}

func TestGolden(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		file := filepath.Join("testdata", filepath.Base(t.Name())+".txtar")
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got := &txtar.Archive{Files: []txtar.File{
			archive.Files[0],
			{Name: "text", Data: Text(lab)},
			{Name: "dot", Data: DOT(lab)},
			{Name: "mermaid", Data: Mermaid(lab)},
			{Name: "svg", Data: withoutStyle(t, SVG(lab))},
		}}
		if *update {
			if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		want := map[string]string{}
		for _, f := range archive.Files {
			want[f.Name] = string(f.Data)
		}
		for _, f := range got.Files {
			if want[f.Name] != string(f.Data) {
				t.Errorf("%s: %s\ngot:\n%s\nwant:\n%s", file, f.Name, f.Data, want[f.Name])
			}
		}
	})
}

// withoutStyle takes out the style sheet, which has a file of its own.
func withoutStyle(t *testing.T, svg []byte) []byte {
	t.Helper()
	if n := bytes.Count(svg, []byte(styleSheet)); n != 1 {
		t.Fatalf("the style sheet stands %d times in the picture", n)
	}
	return bytes.Replace(svg, []byte(styleSheet), nil, 1)
}

// TestSVGIsXML also looks for a name that became an element.
func TestSVGIsXML(t *testing.T) {
	known := map[string]bool{}
	for _, name := range strings.Fields("svg title desc style rect text path circle g") {
		known[name] = true
	}
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		dec := xml.NewDecoder(bytes.NewReader(SVG(lab)))
		titles := 0
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if start, ok := token.(xml.StartElement); ok {
				if !known[start.Name.Local] {
					t.Errorf("element %s", start.Name.Local)
				}
				if start.Name.Local == "title" {
					titles++
				}
			}
		}
		if want := 1 + len(lab.Nodes); titles != want {
			t.Errorf("%d titles, want %d", titles, want)
		}
	})
}

func TestDotAcceptsDOT(t *testing.T) {
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Fatalf("%v (apt-get install graphviz)", err)
	}
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		cmd := exec.Command(dot, "-Tplain")
		cmd.Stdin = bytes.NewReader(DOT(lab))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Fatalf("dot: %v: %s", err, stderr.String())
		}
		if n, want := bytes.Count(out, []byte("\nnode ")), len(lab.Nodes)+len(lab.Networks); n != want {
			t.Errorf("dot drew %d nodes, want %d", n, want)
		}
	})
}

// TestMermaidLines holds every line against the few forms that Mermaid is given.
func TestMermaidLines(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		for i, line := range strings.Split(strings.TrimSuffix(string(Mermaid(lab)), "\n"), "\n") {
			quotes := strings.Count(line, `"`)
			if quotes != 0 && quotes != 2 {
				t.Errorf("line %d has %d quotes: %s", i+1, quotes, line)
			}
			if quotes == 0 {
				continue
			}
			label := strings.ReplaceAll(strings.Split(line, `"`)[1], "<br/>", "")
			if strings.ContainsAny(label, "<>[]{}|`&\\") {
				t.Errorf("line %d bears a sign of Mermaid's own: %s", i+1, line)
			}
		}
	})
}

func TestSameBytes(t *testing.T) {
	eachLab(t, func(t *testing.T, lab *topo.Topology) {
		for name, draw := range map[string]func(*topo.Topology) []byte{"dot": DOT, "mermaid": Mermaid, "svg": SVG, "text": Text} {
			first := draw(lab)
			for range 5 {
				if !bytes.Equal(first, draw(lab)) {
					t.Errorf("%s differs from one run to the next", name)
				}
			}
		}
	})
}
