package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/fake"
)

// borrowed is a provider of somebody's own machines.
type borrowed struct{ *fake.Provider }

func (borrowed) Borrowed() {}

// TestReset: what a hand added goes by the command that the agent names, and what
// has none is left; on borrowed machines all of it is.
func TestReset(t *testing.T) {
	for _, tc := range []struct {
		name     string
		borrowed bool
		ran      []string
		left     []string
	}{
		{"its own", false, []string{"router: nft delete table ip lesson"}, []string{"k8s-ctr page 80"}},
		{"borrowed", true, nil, []string{"router firewall table ip lesson", "k8s-ctr page 80"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStage(t)
			s.mustUp()
			var mu sync.Mutex
			var ran []string
			s.mu.Lock()
			s.drifts = map[string][]api.Object{
				"router":  {{Kind: "firewall", Name: "table ip lesson", Condition: api.Drifted, Reason: "it is not the lab's", Cure: "nft delete table ip lesson"}},
				"k8s-ctr": {{Kind: "page", Name: "80", Condition: api.Drifted, Reason: "no cure is known"}},
			}
			s.mu.Unlock()
			s.provider.Run = func(_ context.Context, _, node string, cmd provision.Command) error {
				mu.Lock()
				defer mu.Unlock()
				ran = append(ran, node+": "+strings.Join(cmd.Argv, " "))
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.drifts, node)
				return nil
			}
			if tc.borrowed {
				s.lab.Provider = borrowed{s.provider}
			}
			report, err := s.lab.Reset(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, d := range report.Left {
				left = append(left, d.Node+" "+d.Object)
			}
			if !slices.Equal(ran, tc.ran) || !slices.Equal(left, tc.left) {
				t.Errorf("ran %v, want %v; left %v, want %v", ran, tc.ran, left, tc.left)
			}
			if got := fmt.Sprint(report.Undone); strings.Contains(got, "nft") == tc.borrowed {
				t.Errorf("undone: %s", got)
			}
			if _, err := s.lab.Reset(t.Context(), "router"); err == nil || !strings.Contains(err.Error(), "fake mends the links of all nodes together") {
				t.Errorf("one node, on a provider that knows only all: %v", err)
			}
		})
	}
}
