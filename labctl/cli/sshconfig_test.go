package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
)

const (
	studyKey   = "/Users/a student's/Library/Application Support/key"
	studyHosts = "/Users/a student's/Library/Application Support/known_hosts"
)

// study has a node with a key, and one for which the SSH agent is asked.
func study() (*lab.Lab, []provision.SSHHost) {
	return &lab.Lab{Name: "my-study"}, []provision.SSHHost{
		{Node: "k8s-ctr", HostName: "127.0.0.1", Port: 2222, User: "vagrant", IdentityFile: studyKey, KnownHosts: studyHosts},
		{Node: "router", HostName: "203.0.113.7", Port: 22, User: "ubuntu", KnownHosts: studyHosts},
	}
}

func TestSSHConfig(t *testing.T) {
	var written bytes.Buffer
	l, hosts := study()
	if err := writeSSHConfig(&written, l, hosts); err != nil {
		t.Fatal(err)
	}
	want := `Host k8s-ctr k8s-ctr.my-study
  HostName 127.0.0.1
  Port 2222
  User vagrant
  IdentityFile "/Users/a student's/Library/Application Support/key"
  IdentitiesOnly yes
  HostKeyAlias k8s-ctr
  UserKnownHostsFile "/Users/a student's/Library/Application Support/known_hosts"
  StrictHostKeyChecking yes

Host router router.my-study
  HostName 203.0.113.7
  Port 22
  User ubuntu
  HostKeyAlias router
  UserKnownHostsFile "/Users/a student's/Library/Application Support/known_hosts"
  StrictHostKeyChecking yes

`
	if diff := cmp.Diff(want, written.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, written.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sshReads(t, exec.Command("ssh", "-G", "-F", file, "k8s-ctr"),
		"hostname 127.0.0.1", "port 2222", "user vagrant", "identityfile "+studyKey, "identitiesonly yes",
		"hostkeyalias k8s-ctr", "userknownhostsfile "+studyHosts, "stricthostkeychecking true")
	sshReads(t, exec.Command("ssh", "-G", "-F", file, "router.my-study"),
		"hostname 203.0.113.7", "identitiesonly no", "hostkeyalias router", "userknownhostsfile "+studyHosts)
}

func TestAnsible(t *testing.T) {
	var written bytes.Buffer
	l, hosts := study()
	inventory := ansible(l, hosts)
	if err := ui.Write(&written, ui.YAML, inventory, nil); err != nil {
		t.Fatal(err)
	}
	want := `my_study:
  hosts:
    k8s-ctr:
      ansible_host: 127.0.0.1
      ansible_port: 2222
      ansible_user: vagrant
      ansible_ssh_private_key_file: /Users/a student's/Library/Application Support/key
      ansible_ssh_common_args: -o HostKeyAlias=k8s-ctr -o StrictHostKeyChecking=yes -o "UserKnownHostsFile=\"/Users/a student's/Library/Application Support/known_hosts\"" -o IdentitiesOnly=yes
    router:
      ansible_host: 203.0.113.7
      ansible_port: 22
      ansible_user: ubuntu
      ansible_ssh_common_args: -o HostKeyAlias=router -o StrictHostKeyChecking=yes -o "UserKnownHostsFile=\"/Users/a student's/Library/Application Support/known_hosts\""
`
	if diff := cmp.Diff(want, written.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// The shell splits as Ansible does.
	args := inventory["my_study"].Hosts["k8s-ctr"].SSHArgs
	sshReads(t, exec.Command("sh", "-c", "ssh -G -F /dev/null "+args+" host"),
		"hostkeyalias k8s-ctr", "stricthostkeychecking true", "userknownhostsfile "+studyHosts, "identitiesonly yes")
}

// sshReads wants ssh to understand its configuration so.
func sshReads(t *testing.T, cmd *exec.Cmd, want ...string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	lines := strings.Split(string(out), "\n")
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("%q: ssh does not read %q from it:\n%s", cmd.Args, line, out)
		}
	}
}
