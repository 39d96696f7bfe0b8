//go:build linux && amd64

package vmtest

import (
	"strings"

	"github.com/native-routing/labctl/provision"
)

// networkChecks are those that need no pods, and no packets but a few.
var networkChecks = []string{"--check", "interfaces,forwarding,routes,fib"}

// testHaltAndStart: what was set up is on the disk, and comes back.
func testHaltAndStart(u user) {
	u.must("halt", "k8s-w1")
	u.wantState("k8s-w1", provision.NodeStopped)
	u.must("start", "k8s-w1")
	u.healthy()
	u.verified(networkChecks...)
	if out := u.must("up", u.file); !strings.Contains(out, "is unchanged") {
		u.t.Errorf("after halt and start, up changed:\n%s", out)
	}
}

// testRouterReboots: nobody of labctl is there, and all comes back by itself.
func testRouterReboots(u user) {
	bootID := []string{"cat", "/proc/sys/kernel/random/boot_id"}
	before := u.on("router", bootID...)
	u.try("exec", "router", "--", "systemctl", "reboot") // the connection may not outlive it
	u.eventually("the router boots anew", func() (string, bool) {
		now, errs, _ := u.try(append([]string{"exec", "router", "--"}, bootID...)...) // empty while it is away
		return now + errs, now != "" && now != before
	})
	u.healthy()
	u.verified()
}

// testNodeDown: one machine goes, and is made anew among those that stayed.
func testNodeDown(u user) {
	u.must("down", "k8s-w1")
	u.wantState("k8s-w1", "missing")
	u.must("up", u.file)
	u.healthy()
	u.verified(networkChecks...)
}

// testMachineLost: somebody removes a machine behind labctl's back.
func testMachineLost(u user) {
	domain := ""
	for name := range strings.FieldsSeq(run(u.t, "virsh", "list", "--all", "--name")) {
		if strings.HasSuffix(name, "k8s-w0") {
			domain = name
		}
	}
	run(u.t, "virsh", "destroy", domain)
	run(u.t, "virsh", "undefine", domain)
	u.wantState("k8s-w0", "missing", provision.NodeBroken)
	u.must("up", u.file)
	u.healthy()
	u.verified(networkChecks...)
}
