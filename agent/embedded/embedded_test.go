package embedded

import (
	"errors"
	"testing"
	"testing/fstest"
)

func TestBinary(t *testing.T) {
	files := fstest.MapFS{"bin/agent-linux-amd64": {Data: []byte("\x7fELF")}}
	got, err := binary(files, "amd64")
	if err != nil || string(got) != "\x7fELF" {
		t.Errorf("amd64: %q, %v", got, err)
	}
	for _, arch := range []string{"arm64", "../../go", ""} {
		_, err := binary(files, arch)
		if !errors.Is(err, ErrAbsent) {
			t.Errorf("%q: %v, want %v", arch, err, ErrAbsent)
		}
		want := `this labctl carries no agent for linux/` + arch + `: build it with "make build"`
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v\nwant %s", arch, err, want)
		}
	}
}

// In a bare clone the package builds, and says what to do.
func TestBareClone(t *testing.T) {
	if _, err := Binary("riscv64"); !errors.Is(err, ErrAbsent) {
		t.Errorf("riscv64: %v, want %v", err, ErrAbsent)
	}
}
