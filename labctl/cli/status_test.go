package cli

import (
	"bytes"
	"errors"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
)

// TestNodeStatusExit: the end is about the node that was asked for, and no other.
func TestNodeStatusExit(t *testing.T) {
	running := func(name string, objects ...api.Object) lab.NodeStatus {
		return lab.NodeStatus{Name: name, State: provision.NodeRunning, Agent: &api.Status{Settled: true, Objects: objects}}
	}
	report := lab.StatusReport{Lab: "study", Nodes: []lab.NodeStatus{
		running("k8s-ctr", api.Object{Kind: "route", Name: "172.20.2.0/24", Condition: api.Refused}),
		running("router", api.Object{Kind: "link", Name: "eth1", Condition: api.Drifted}),
		{Name: "k8s-w1", State: provision.NodeStopped, Detail: "its VM is halted"},
		{Name: "k8s-w0", State: provision.NodeRunning, AgentError: "it does not answer"},
	}}
	for node, want := range map[string]int{"k8s-ctr": exitOK, "router": exitFailed, "k8s-w1": exitFailed, "k8s-w0": exitFailed, "k8s-w9": exitUsage} {
		for _, format := range []ui.Format{ui.Table, ui.JSON} {
			var out bytes.Buffer
			a := &app{Program: Program{Out: &out}}
			got := exitOK
			if err := a.nodeStatus(report, node, format); err != nil {
				got = exitCode(err)
			}
			if got != want || (out.Len() == 0) != (want == exitUsage) {
				t.Errorf("%s, %s: exit %d, want %d; it printed %q", node, format, got, want, &out)
			}
		}
	}
	broken := &app{Program: Program{Out: gone{}}}
	if err := broken.nodeStatus(report, "router", ui.JSON); !errors.Is(err, errGone) {
		t.Errorf("a reader that has gone: %v", err)
	}
}

var errGone = errors.New("gone")

type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errGone }
