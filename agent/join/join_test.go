package join

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocket has the far end answer when it has read all: the end of the input
// arrives there, and what is answered after it arrives here.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		heard, _ := io.ReadAll(conn)
		_, _ = conn.Write(bytes.ToUpper(heard))
	}()
	var out bytes.Buffer
	if err := Socket(path, strings.NewReader("hello"), &out); err != nil || out.String() != "HELLO" {
		t.Errorf("%v: %q", err, out.String())
	}
	if err := Socket(path+".not", strings.NewReader(""), io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want ErrNotExist", err)
	}
}
