package vagrant

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// TestBatchWaitsForProbes: whose machine turns out not to answer is booted with
// the others, however long it took to find out.
func TestBatchWaitsForProbes(t *testing.T) {
	s := newStage(t, Libvirt)
	s.options.GatherTime = time.Millisecond
	topology, l := study(t), s.lab("study")
	l.probing.RLock() // as k8s-ctr's would
	probed := sync.OnceFunc(l.probing.RUnlock)
	defer probed()
	done := make(chan error, 2)
	for i, node := range []string{"router", "k8s-ctr"} {
		go func() { _, err := s.EnsureNode(t.Context(), topology, node); done <- err }()
		s.waitJoined(l, i+1)
	}
	probed()
	for range 2 {
		if err := receive(t, done); err != nil {
			t.Error(err)
		}
	}
	if calls := s.calls("vagrant up"); !slices.Equal(calls, []string{upAll + " router k8s-ctr"}) {
		t.Errorf("called %q", calls)
	}
}

// waitJoined waits until so many nodes are in the next batch.
func (s *stage) waitJoined(l *lab, count int) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		joined := l.next != nil && len(l.next.nodes) == count
		l.mu.Unlock()
		if joined {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("no batch has %d nodes", count)
		}
	}
}
