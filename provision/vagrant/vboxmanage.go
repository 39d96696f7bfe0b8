package vagrant

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// vboxManage looks at VirtualBox for machines that Vagrant has lost sight of.
// Where there is no VBoxManage, nothing is found.
type vboxManage struct{}

var errNoVBoxManage = errors.New("no VBoxManage")

func (v vboxManage) run(ctx context.Context, args ...string) (string, error) {
	path, ok := v.find()
	if !ok {
		return "", errNoVBoxManage
	}
	return output(ctx, path, args...)
}

// find looks where Vagrant looks too: VirtualBox's installer for Windows puts
// nothing on the PATH, but says in the environment where it is.
func (vboxManage) find() (path string, ok bool) {
	const name = "VBoxManage"
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	dirs := append(filepath.SplitList(os.Getenv("VBOX_INSTALL_PATH")), filepath.SplitList(os.Getenv("VBOX_MSI_INSTALL_PATH"))...)
	dirs = append(dirs, "/Applications/VirtualBox.app/Contents/MacOS")
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
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
