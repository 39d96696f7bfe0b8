//go:build linux

package daemon

import (
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/peer"
)

// A pod is a backend when packets reach it: one that became ready waits for the
// datapath, one that was ready when the agent began does not.
func TestReadyWhenReached(t *testing.T) {
	p := &parts{peers: peer.New(peer.Config{Report: func(err error) { t.Error(err) }, OnChange: func() {}})}
	pod := func(name string, ready bool) api.PodStatus {
		return api.PodStatus{Namespace: "default", Name: name, UID: "uid of " + name, Phase: api.PodRunning, Ready: ready}
	}
	for i, step := range []struct {
		pods       []api.PodStatus
		reached    map[string]bool
		old, fresh peer.State
	}{
		{[]api.PodStatus{pod("old", true), pod("fresh", false)}, nil, peer.Ready, peer.NotReady},
		{[]api.PodStatus{pod("old", true), pod("fresh", true)}, nil, peer.Ready, peer.NotReady},
		{[]api.PodStatus{pod("old", true), pod("fresh", true)}, map[string]bool{"uid of fresh": true}, peer.Ready, peer.Ready},
		// A look in which a device was not there does not take a backend away.
		{[]api.PodStatus{pod("old", true), pod("fresh", true)}, map[string]bool{}, peer.Ready, peer.Ready},
		{[]api.PodStatus{pod("old", true), pod("fresh", false)}, map[string]bool{}, peer.Ready, peer.NotReady},
	} {
		p.reached = step.reached
		p.tellLocal(step.pods)
		states := p.peers.States()
		if states["default/old"] != step.old || states["default/fresh"] != step.fresh {
			t.Errorf("step %d: %v, want old %s, fresh %s", i, states, step.old, step.fresh)
		}
	}
}
