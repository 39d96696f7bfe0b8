package providertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
)

// Runner is the part of a node that runs commands.
type Runner interface {
	Run(ctx context.Context, cmd provision.Command) error
}

// Commands tests what holds for commands wherever they run: how they end, and
// what becomes of their streams.
func Commands(t *testing.T, r Runner) {
	t.Helper()
	for _, test := range []struct {
		argv   []string
		code   int
		signal string
	}{
		{[]string{"sh", "-c", "exit 0"}, 0, ""},
		{[]string{"sh", "-c", "exit 1"}, 1, ""},
		{[]string{"sh", "-c", "exit 42"}, 42, ""},
		{[]string{"sh", "-c", "kill -TERM $$"}, 143, "SIGTERM"},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, "SIGKILL"},
		{[]string{"no-such-command"}, 127, ""},
		{[]string{"/no/such/command"}, 127, ""},
	} {
		err := r.Run(t.Context(), provision.Command{Argv: test.argv})
		exit := &provision.ExitError{}
		if err != nil && !errors.As(err, &exit) {
			t.Errorf("%q: %v, want an ExitError", test.argv, err)
			continue
		}
		if exit.Code != test.code || exit.Signal != test.signal {
			t.Errorf("%q: %+v, want code %d signal %q", test.argv, exit, test.code, test.signal)
		}
		if (test.code == 127) != errors.Is(err, exec.ErrNotFound) {
			t.Errorf("%q: %v", test.argv, err)
		}
	}
	var out, errs bytes.Buffer
	err := r.Run(t.Context(), provision.Command{
		Argv: []string{"sh", "-c", `cat; echo "$MINE"; echo e >&2`}, Env: []string{"MINE=it's $HOME\n"},
		Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || out.String() != "in\nit's $HOME\n\n" || errs.String() != "e\n" {
		t.Errorf("%v: %q %q", err, out.String(), errs.String())
	}
	much(t, r)
	// Input that never ends must not keep a command that has.
	in, w := io.Pipe()
	defer w.Close()
	if err := r.Run(t.Context(), provision.Command{Argv: []string{"true"}, Stdin: in}); err != nil {
		t.Error(err)
	}
}

// much sends 10 MB there and back.
func much(t *testing.T, r Runner) {
	t.Helper()
	sent := make([]byte, 10_000_000)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	var out bytes.Buffer
	if err := r.Run(t.Context(), provision.Command{Argv: []string{"cat"}, Stdin: bytes.NewReader(sent), Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(out.Bytes()) != sha256.Sum256(sent) {
		t.Errorf("%d bytes came back, of %d", out.Len(), len(sent))
	}
}
