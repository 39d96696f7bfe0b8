package remote

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// TestInteractive has a local terminal handed over: its size and changes of it,
// keys, signals by keys, exit status, and the terminal as it was afterwards.
func TestInteractive(t *testing.T) {
	c := dial(t, to(t, sshtest.NewDaemon(t)))
	person, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer terminal.Close()
	resize := func(rows, columns uint16) {
		t.Helper()
		if err := pty.Setsize(person, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
			t.Fatal(err)
		}
	}
	resize(33, 99)
	before := settings(t, terminal)
	t.Setenv("TERM", "vt220")
	result := make(chan error, 1)
	go func() {
		result <- c.Run(t.Context(), provision.Command{
			Argv: []string{"sh", "-c", `trap 'echo "now $(stty size)"' WINCH
				trap 'echo interrupted; exit 7' INT
				echo "size $(stty size) $TERM"
				while :; do sleep 0.05; done`},
			Interactive: true, Stdin: terminal, Stdout: terminal, Stderr: terminal,
		})
	}()
	seen := &screen{t: t, from: person}
	seen.until("size 33 99 vt220")
	resize(40, 120)
	// The signal goes to the foreground process group of that terminal, which this test is not in.
	self, _ := os.FindProcess(os.Getpid())
	if err := self.Signal(syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	seen.until("now 40 120")
	fmt.Fprint(person, "\x03")
	seen.until("interrupted")
	err = <-result
	if exit, ok := err.(*provision.ExitError); !ok || exit.Code != 7 {
		t.Errorf("%v, want exit status 7", err)
	}
	if after := settings(t, terminal); after != before {
		t.Errorf("the terminal was %s, is %s", before, after)
	}
}

// settings are what stty says of a terminal.
func settings(t *testing.T, terminal *os.File) string {
	t.Helper()
	c := exec.Command("stty", "-g")
	c.Stdin = terminal
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// screen reads what a terminal shows.
type screen struct {
	t    *testing.T
	from *os.File
	text string
}

func (s *screen) until(word string) {
	s.t.Helper()
	buffer := make([]byte, 4096)
	for !strings.Contains(s.text, word) {
		n, err := s.from.Read(buffer)
		if err != nil {
			s.t.Fatalf("%v before %q: %q", err, word, s.text)
		}
		s.text += string(buffer[:n])
	}
}
