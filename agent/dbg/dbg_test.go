//go:build linux

package dbg

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/agent/inspect/inspecttest"
)

var update = flag.Bool("update", false, "write what the commands print into testdata")

// memory is a node whose maps are in a file.
type memory struct{ dump *inspect.Dump }

func (m memory) Read(...string) (*inspect.Dump, error) { return m.dump, nil }
func (m memory) ReadSizes() ([]inspect.Size, error)    { return m.dump.Sizes, nil }
func (m memory) opens() func() (source, error)         { return func() (source, error) { return m, nil } }
func nowhere() (source, error)                         { return nil, inspect.ErrNoDatapath }
func dumped(t testing.TB, text string) func() (source, error) {
	return memory{inspecttest.Parse(t, text)}.opens()
}

// run carries out a command line, and returns all that it printed.
func run(t testing.TB, config Config, open func() (source, error), args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	p := &program{config: config, stdout: &out, stderr: &errOut, open: open}
	code = p.run(t.Context(), args)
	return out.String(), errOut.String(), code
}

// TestCommands compares the whole output of commands with testdata. In a file
// "maps" is the dump, "desired.json" the agent's state, and each "dbg ARGS" what
// that prints: stdout, then stderr, then the exit code if it is not 0.
func TestCommands(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { checkFile(t, file) })
	}
}

func checkFile(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{DataDir: t.TempDir(), RunDir: "/nowhere"}
	open := nowhere
	for i, part := range archive.Files {
		switch args, command := strings.CutPrefix(part.Name, "dbg"); {
		case part.Name == "maps":
			open = dumped(t, string(part.Data))
		case part.Name == "desired.json":
			if err := os.WriteFile(filepath.Join(config.DataDir, part.Name), part.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		case command:
			got := transcript(t, config, open, strings.Fields(args))
			if *update {
				archive.Files[i].Data = []byte(got)
			} else if diff := cmp.Diff(string(part.Data), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", part.Name, diff)
			}
		default:
			t.Fatalf("unknown part %q", part.Name)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func transcript(t *testing.T, config Config, open func() (source, error), args []string) string {
	stdout, stderr, code := run(t, config, open, args...)
	if stderr != "" {
		stdout += "stderr: " + stderr
	}
	if code != ExitOK {
		stdout += "exit " + string(rune('0'+code)) + "\n"
	}
	return stdout
}
