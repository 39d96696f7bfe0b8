package ui

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// openPty returns a terminal of 40 columns and a function that closes it and
// gives all that it received.
func openPty(t *testing.T) (tty *os.File, received func() string) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 10, Cols: 40}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&b, master) // ends with EIO when the other side is closed
	}()
	return tty, func() string {
		tty.Close()
		<-read
		master.Close()
		return b.String()
	}
}

func setenv(t *testing.T, vars map[string]string) {
	for _, name := range []string{"NO_COLOR", "TERM", "LC_ALL", "LC_CTYPE", "LANG"} {
		t.Setenv(name, vars[name])
	}
}

func TestAutoOnTerminal(t *testing.T) {
	setenv(t, map[string]string{"TERM": "xterm", "LANG": "en_US.UTF-8"})
	tty, received := openPty(t)
	p := Auto(tty, false)
	task := p.Start("nodes")
	time.Sleep(3 * redrawEvery)
	task.Done(strings.Repeat("long ", 40))
	p.Close()
	got := received()
	for _, want := range []string{"⠋", "⠙", "\x1b[32mok", "…", "\x1b[A"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.Contains(got, "\x1b[?25l") {
		t.Errorf("the cursor was hidden: %q", got)
	}
	s := newScreen()
	s.vt.Resize(40, 10)
	io.WriteString(s, strings.ReplaceAll(got, "\r\n", "\n"))
	if lines := strings.Split(string(s.text()), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "ok    nodes ") {
		t.Errorf("more is left than the finished line: %q", lines)
	}
}

func TestAutoModes(t *testing.T) {
	tests := []struct {
		name  string
		env   map[string]string
		quiet bool
		want  Mode
		bad   string
	}{
		{"terminal", map[string]string{"TERM": "xterm"}, false, Live, "\x1b[31mx\x1b[39m"},
		{"NO_COLOR", map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false, Live, "x"},
		{"dumb", map[string]string{"TERM": "dumb"}, false, Plain, "x"},
		{"quiet", map[string]string{"TERM": "xterm"}, true, Quiet, "\x1b[31mx\x1b[39m"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			setenv(t, tt.env)
			tty, received := openPty(t)
			p := Auto(tty, tt.quiet)
			p.Close()
			received()
			if p.mode != tt.want || p.Style.Bad("x") != tt.bad {
				t.Errorf("mode %d, style %q", p.mode, p.Style.Bad("x"))
			}
		})
	}
	var b bytes.Buffer
	if p := Auto(&b, false); p.mode != Plain {
		t.Errorf("mode in a buffer: %d", p.mode)
	}
}
