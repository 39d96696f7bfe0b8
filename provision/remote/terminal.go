package remote

import (
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/native-routing/labctl/provision"
)

// terminal asks for a terminal on the node like the local one, which it makes
// raw. Where Stdin is no terminal the command gets none.
func (r *run) terminal(cmd provision.Command) (restore func(), err error) {
	file, ok := cmd.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}, nil
	}
	screen := file
	if out, ok := cmd.Stdout.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		screen = out // on Windows, input has no size
	}
	if err := r.requestTerminal(screen); err != nil {
		return nil, err
	}
	before, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("make the terminal raw: %w", err)
	}
	stop := r.followSize(screen)
	return func() {
		stop()
		_ = term.Restore(int(file.Fd()), before)
	}, nil
}

// requestTerminal sends pty-req (RFC 4254, 6.2).
func (r *run) requestTerminal(screen *os.File) error {
	columns, rows, err := term.GetSize(int(screen.Fd()))
	if err != nil {
		columns, rows = 80, 24
	}
	kind := os.Getenv("TERM")
	if kind == "" {
		kind = "xterm-256color"
	}
	ok, err := r.channel.SendRequest("pty-req", true, ssh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{kind, uint32(columns), uint32(rows), 0, 0, "\x00"})) // modes: none but the end
	if err != nil {
		return fmt.Errorf("ask for a terminal: %w", err)
	}
	if !ok {
		return fmt.Errorf("ask for a terminal: %w (PermitTTY in its sshd_config?)", errRefused)
	}
	return nil
}

// followSize tells the node of every new size of the screen, until stop.
func (r *run) followSize(screen *os.File) (stop func()) {
	done := make(chan struct{})
	changed, release := sizeChanges()
	go func() {
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			columns, rows, err := term.GetSize(int(screen.Fd()))
			if err != nil {
				continue
			}
			_, _ = r.channel.SendRequest("window-change", false, ssh.Marshal(struct {
				Columns, Rows, Width, Height uint32
			}{uint32(columns), uint32(rows), 0, 0}))
		}
	}()
	return func() { close(done); release() }
}
