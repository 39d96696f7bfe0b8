//go:build linux

package pod

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// agentVariable names another executable to measure than the test's own, which
// holds the whole of the testing package, too.
const agentVariable = "LABCTL_TEST_AGENT"

// TestScale measures how long pods take, and what they cost.
func TestScale(t *testing.T) {
	for _, n := range []int{1, 4, 50} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			m := newMachine(t, cgroup2(t))
			if path := os.Getenv(agentVariable); path != "" {
				m.stop()
				m.config.Executable = path
				m.start()
			}
			var pods []api.Pod
			for i := range n {
				pods = append(pods, webPod(10+i, fmt.Sprintf("web-%d", i)))
			}
			s := state(pods...)
			m.Set(s)
			took := m.until("all run", func() bool {
				ready := 0
				for _, p := range m.Pods() {
					if p.Ready {
						ready++
					}
				}
				return ready == n
			})
			if objects, settled := m.Objects(); !settled || len(objects) != n {
				m.until("settled", func() bool { _, settled := m.Objects(); return settled })
			}
			again := m.settle(s)
			time.Sleep(100 * time.Millisecond)
			p := m.pod("web-0")
			t.Logf("%d pods run after %v, looked at again in %v; sandbox %s, whoami %s", n, took.Round(time.Millisecond), again.Round(time.Microsecond),
				memory(t, p.PID), memory(t, whoamiPID(m, "web-0")))
			begin := time.Now()
			m.Set(state())
			m.until("all gone", func() bool { return len(m.Pods()) == 0 })
			t.Logf("gone after %v", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// memory is what a process has in memory, and what of it is its own.
func memory(t *testing.T, pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "Rss:" || f[0] == "Pss:" || f[0] == "Private_Dirty:" {
			fmt.Fprintf(&b, "%s %s kB ", f[0], f[1])
		}
	}
	return strings.TrimSpace(b.String())
}
