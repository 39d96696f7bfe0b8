package vagrant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/provision"
)

func TestLabsByTheirMarks(t *testing.T) {
	s := newStage(t, Libvirt)
	s.put("domains", "labctl-dev", "1") // a name without a node's is no mark
	s.put("domains", "labctl-a_router", "1")
	s.put("networks", "labctl-b", "")
	s.put("networks", "labctl-c_left", "")
	s.put("networks", "default", "")
	s.put("volumes", "labctl-d_router.img", "")
	s.put("volumes", "labctl-mine", "")
	if labs, err := s.Labs(t.Context()); err != nil || !slices.Equal(labs, []string{"a", "b", "c", "d"}) {
		t.Errorf("%q, %v", labs, err)
	}
}

func TestHangingLookIsEnded(t *testing.T) {
	s := newStage(t, VirtualBox)
	s.wantUp(study(t))
	s.restart(VirtualBox)
	s.options.LookTime = 50 * time.Millisecond
	s.faults(fakeFault{Command: "status", Hang: true, Deaf: true}, fakeFault{Command: "ssh-config", Hang: true, Deaf: true})
	_, err := s.Observe(t.Context(), "study")
	if !errors.Is(err, ErrVirtualBox) || !strings.Contains(err.Error(), "vagrant status has not ended within 50ms (end the process VBoxSVC") {
		t.Errorf("status: %v", err)
	}
	l := s.lab("study")
	if err := l.forget("router"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.lookUp(t.Context(), l, VirtualBox, "router"); !errors.Is(err, ErrVirtualBox) {
		t.Errorf("ssh-config: %v", err)
	}
}

func TestUnanswered(t *testing.T) {
	for text, want := range map[string]struct {
		class error
		cure  string
	}{
		"error: failed to connect to the hypervisor error: Failed to connect socket to '/x': No such file or directory": {ErrLibvirt, cureLibvirt},
		"error: failed to connect to the hypervisor error: Failed to connect socket to '/x': Permission denied":         {provision.ErrPermission, cureGroup},
		"error: failed to connect to the hypervisor error: authentication unavailable: no polkit agent available":       {provision.ErrPermission, cureGroup},
	} {
		if err := unanswered(t.Context(), errors.New(text)); !errors.Is(err, want.class) || !errors.Is(err, ErrLibvirt) || !strings.HasSuffix(err.Error(), "("+want.cure+")") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := unanswered(t.Context(), fmt.Errorf("virsh: %w", context.DeadlineExceeded)); !errors.Is(err, ErrLibvirt) || !strings.Contains(err.Error(), cureHung) {
		t.Errorf("it hangs: %v", err)
	}
	if err := unanswered(t.Context(), errors.New("error: Network not found")); errors.Is(err, ErrLibvirt) {
		t.Errorf("libvirt has answered: %v", err)
	}
}
