package vagrant

import (
	"context"
	"errors"
	"os/exec"
	"strings"
)

// vboxManage looks at VirtualBox for machines that Vagrant has lost sight of.
// Where there is no VBoxManage, nothing is found.
type vboxManage struct{}

var errNoVBoxManage = errors.New("no VBoxManage")

func (vboxManage) run(ctx context.Context, args ...string) (string, error) {
	path, err := exec.LookPath("VBoxManage")
	if err != nil {
		return "", errNoVBoxManage
	}
	return output(ctx, path, args...)
}

// machines are those that bear a lab's mark. VBoxManage list vms prints a line
// "name" {uuid} for each.
func (v vboxManage) machines(ctx context.Context, prefix string) ([]string, error) {
	out, err := v.run(ctx, "list", "vms")
	var names []string
	for line := range strings.Lines(out) {
		if parts := strings.SplitN(line, `"`, 3); len(parts) == 3 && strings.HasPrefix(parts[1], prefix) {
			names = append(names, parts[1])
		}
	}
	return names, err
}

func (v vboxManage) remove(ctx context.Context, name string) error {
	_, _ = v.run(ctx, "controlvm", name, "poweroff") // it may be off already
	_, err := v.run(ctx, "unregistervm", name, "--delete")
	return err
}
