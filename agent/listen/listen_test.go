//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/listen"
	"github.com/native-routing/labctl/agent/nstest"
)

// TestTakenPort binds twice to addresses that no interface has.
func TestTakenPort(t *testing.T) {
	ns := nstest.New(t)
	at := netip.MustParseAddrPort("10.9.8.7:80")
	any := netip.MustParseAddrPort("0.0.0.0:80")
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	who := fmt.Sprintf("address already in use (%s has it, process %d)", name[:len(name)-1], os.Getpid())
	ns.Do(func() {
		tcp, err := listen.TCP(t.Context(), at)
		if err != nil {
			t.Error(err)
			return
		}
		defer tcp.Close()
		_, err = listen.TCP(t.Context(), any)
		if want := "listen on tcp 0.0.0.0:80: " + who; !errors.Is(err, unix.EADDRINUSE) || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		udp, err := listen.UDP(t.Context(), any)
		if err != nil {
			t.Error(err)
			return
		}
		defer udp.Close()
		_, err = listen.UDP(t.Context(), at)
		if want := "listen on udp 10.9.8.7:80: " + who; !errors.Is(err, unix.EADDRINUSE) || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}
