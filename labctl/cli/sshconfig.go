package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
)

// What ssh-config writes beside JSON and YAML.
const (
	sshFormat     ui.Format = "ssh"
	ansibleFormat ui.Format = "ansible"
)

func newSSHConfig(a *app) *cobra.Command {
	output := ui.NewFormat(sshFormat, ansibleFormat, ui.JSON, ui.YAML)
	cmd := &cobra.Command{
		Use:   "ssh-config",
		Short: "How ssh and Ansible reach the nodes of a lab on VMs",
		Long: `Prints a block of ssh_config(5) for each node, with its pinned host key, or an
Ansible inventory (-o ansible). Nodes that are namespaces have no SSH: see labctl ssh.`,
		Example: "  labctl ssh-config > lab.ssh && ssh -F lab.ssh k8s-ctr\n  labctl ssh-config -o ansible > lab.yaml && ansible -i lab.yaml all -m ping",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.current(cmd.Context(), a.story())
			if err != nil {
				return err
			}
			hosts, err := l.SSHHosts(cmd.Context())
			if err != nil {
				return err
			}
			switch output.Format {
			case sshFormat:
				return writeSSHConfig(a.Out, l, hosts)
			case ansibleFormat:
				return ui.Write(a.Out, ui.YAML, ansible(l, hosts), nil)
			}
			return ui.Write(a.Out, output.Format, hosts, nil)
		},
	}
	addOutput(cmd, output)
	return cmd
}

// writeSSHConfig writes a block for each node. Every file's name is quoted: a
// home directory may have a space in it.
func writeSSHConfig(w io.Writer, l *lab.Lab, hosts []provision.SSHHost) error {
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "Host %s %s.%s\n  HostName %s\n  Port %d\n  User %s\n", h.Node, h.Node, l.Name, h.HostName, h.Port, h.User)
		if h.IdentityFile != "" { // without one the SSH agent is asked
			fmt.Fprintf(&b, "  IdentityFile \"%s\"\n  IdentitiesOnly yes\n", h.IdentityFile)
		}
		fmt.Fprintf(&b, "  HostKeyAlias %s\n  UserKnownHostsFile \"%s\"\n  StrictHostKeyChecking yes\n\n", h.Node, h.KnownHosts)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ansibleInventory is Ansible's YAML inventory: one group, named as the lab.
type ansibleInventory map[string]ansibleGroup

type ansibleGroup struct {
	Hosts map[string]ansibleHost `json:"hosts"`
}

type ansibleHost struct {
	Host    string `json:"ansible_host"`
	Port    int    `json:"ansible_port"`
	User    string `json:"ansible_user"`
	Key     string `json:"ansible_ssh_private_key_file,omitempty"`
	SSHArgs string `json:"ansible_ssh_common_args"`
}

func ansible(l *lab.Lab, hosts []provision.SSHHost) ansibleInventory {
	group := ansibleGroup{Hosts: map[string]ansibleHost{}}
	for _, h := range hosts {
		// Quoted twice: Ansible splits it as a shell does, and ssh what is left.
		args := "-o HostKeyAlias=" + h.Node + " -o StrictHostKeyChecking=yes -o " + strconv.Quote(`UserKnownHostsFile="`+h.KnownHosts+`"`)
		if h.IdentityFile != "" {
			args += " -o IdentitiesOnly=yes"
		}
		group.Hosts[h.Node] = ansibleHost{Host: h.HostName, Port: h.Port, User: h.User, Key: h.IdentityFile, SSHArgs: args}
	}
	// Names of groups are words of letters, digits and underscores.
	return ansibleInventory{strings.ReplaceAll(l.Name, "-", "_"): group}
}
