package remote

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/native-routing/labctl/provision/remote/sshtest"
)

// TestOpenSSHReadsPins has ssh(1) check the node by the file that a first contact wrote.
func TestOpenSSHReadsPins(t *testing.T) {
	t.Parallel()
	d := sshtest.NewDaemon(t)
	config := to(t, d)
	dial(t, config)
	ssh := func() ([]byte, error) {
		return exec.Command("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
			"-o", "UserKnownHostsFile="+config.KnownHosts, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "HostKeyAlias="+config.Node,
			"-i", config.KeyFile, "-p", strconv.Itoa(config.Port), "root@127.0.0.1", "echo", "hello").CombinedOutput()
	}
	if out, err := ssh(); err != nil || string(out) != "hello\n" {
		t.Errorf("%v: %s", err, out)
	}
	if err := Forget(t.Context(), config.KnownHosts, config.Node); err != nil {
		t.Fatal(err)
	}
	if out, err := ssh(); err == nil {
		t.Errorf("ssh trusts a node whose pin was forgotten: %s", out)
	}
}

// TestSeveralHostKeys has a node that offers keys of several types: the pinned one
// is asked for, also where another would be preferred.
func TestSeveralHostKeys(t *testing.T) {
	t.Parallel()
	d := sshtest.NewDaemon(t)
	config := to(t, d)
	dial(t, config)
	for _, kind := range []string{"rsa", "ecdsa"} {
		d.AddHostKey(kind)
		dial(t, config)
	}
	if n := lines(t, config.KnownHosts); n != 1 {
		t.Errorf("%d pins, want one", n)
	}
}
