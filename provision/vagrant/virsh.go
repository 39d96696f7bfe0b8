package vagrant

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// toolTime is how long one call of virsh or VBoxManage may take.
const toolTime = 30 * time.Second

// virsh looks at libvirt for what Vagrant has lost sight of, and removes it.
type virsh struct{}

var errNoVirsh = errors.New("there is no virsh")

// run returns what virsh prints. The system's libvirt it is, as in the Vagrantfile.
func (virsh) run(ctx context.Context, args ...string) (string, error) {
	path, err := exec.LookPath("virsh")
	if err != nil {
		return "", fmt.Errorf("%w (%s)", errNoVirsh, cureVirsh)
	}
	out, err := output(ctx, path, append([]string{"-q", "-c", "qemu:///system"}, args...)...)
	return out, unanswered(ctx, err)
}

// unanswered is an ErrLibvirt where virsh did not get through to it.
func unanswered(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w (%s)", ErrLibvirt, err, cureHung)
	case !strings.Contains(err.Error(), "failed to connect to the hypervisor"):
		return err
	case refusedBy.MatchString(err.Error()):
		return fmt.Errorf("%w: %w (%s)", permission{ErrLibvirt}, err, cureGroup)
	}
	return fmt.Errorf("%w: %w (%s)", ErrLibvirt, err, cureLibvirt)
}

// refusedBy is what libvirt says to who may not use it.
var refusedBy = regexp.MustCompile(`Permission denied|authentication (?:unavailable|failed|cancelled)`)

// output runs a tool, and puts what it says on its standard error into the error.
func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &errs, outputDelay
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", strings.Join(append([]string{path}, args...), " "), err, gist(errs.String()))
	}
	return out.String(), nil
}

// names are the lines that virsh prints.
func (v virsh) names(ctx context.Context, args ...string) ([]string, error) {
	out, err := v.run(ctx, args...)
	return strings.Fields(out), err
}

// domains are all that bear a lab's mark, running or not.
func (v virsh) domains(ctx context.Context, prefix string) ([]string, error) {
	return beginning(prefix)(v.names(ctx, "list", "--all", "--name"))
}

// state is how a domain stands, in the words that Vagrant has for it: virsh says
// "shut off" and "in shutdown".
func (v virsh) state(ctx context.Context, id string) (string, error) {
	out, err := v.run(ctx, "domstate", id)
	switch state := strings.TrimSpace(out); state {
	case "shut off":
		return "shutoff", err
	case "in shutdown":
		return shuttingDown, err
	default:
		return strings.ReplaceAll(state, " ", "_"), err
	}
}

// marked are the names of all that bears the mark of any lab. A management
// network's gets the mark's end, so that each name tells its lab.
func (v virsh) marked(ctx context.Context) ([]string, error) {
	domains, err := v.domains(ctx, markPrefix)
	if err != nil {
		return nil, err
	}
	networks, err := beginning(markPrefix)(v.names(ctx, "net-list", "--all", "--name"))
	if err != nil {
		return domains, err
	}
	names := domains
	for _, n := range networks {
		names = append(names, n+"_")
	}
	volumes, err := v.volumes(ctx, markPrefix)
	for _, v := range volumes {
		names = append(names, v.name)
	}
	return names, err
}

// networks are the lab's, running or not.
func (v virsh) networks(ctx context.Context, lab string) ([]string, error) {
	names, err := v.names(ctx, "net-list", "--all", "--name")
	return slices.DeleteFunc(names, func(n string) bool {
		return n != managementName(lab) && !strings.HasPrefix(n, mark(lab))
	}), err
}

func beginning(prefix string) func([]string, error) ([]string, error) {
	return func(names []string, err error) ([]string, error) {
		return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) }), err
	}
}

// volume is one of a pool of libvirt's.
type volume struct{ pool, name string }

// volumes are those of all active pools whose names begin so.
func (v virsh) volumes(ctx context.Context, prefix string) ([]volume, error) {
	pools, err := v.names(ctx, "pool-list", "--name")
	if err != nil {
		return nil, err
	}
	var found []volume
	for _, pool := range pools {
		out, err := v.run(ctx, "vol-list", pool)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if fields := strings.Fields(line); len(fields) > 0 && strings.HasPrefix(fields[0], prefix) {
				found = append(found, volume{pool, fields[0]})
			}
		}
	}
	return found, nil
}

// nics counts the interfaces of a domain.
func (v virsh) nics(ctx context.Context, domain string) (int, error) {
	out, err := v.run(ctx, "domiflist", domain)
	return strings.Count(out, ":") / 5, err // each has one MAC address
}

// switchOff is like pulling the plug: a domain keeps all that it has written.
func (v virsh) switchOff(ctx context.Context, name string) error {
	_, err := v.run(ctx, "destroy", name)
	return err
}

func (v virsh) removeDomain(ctx context.Context, name string) error {
	_, _ = v.run(ctx, "destroy", name) // it may be off already
	_, err := v.run(ctx, "undefine", name, "--managed-save", "--snapshots-metadata", "--nvram")
	return err
}

func (v virsh) removeNetwork(ctx context.Context, name string) error {
	_, _ = v.run(ctx, "net-destroy", name) // it may be off already
	_, err := v.run(ctx, "net-undefine", name)
	return err
}

func (v virsh) removeVolume(ctx context.Context, vol volume) error {
	_, err := v.run(ctx, "vol-delete", "--pool", vol.pool, vol.name)
	return err
}

// used says whether another volume stands on this one.
func (v virsh) used(ctx context.Context, vol volume) (bool, error) {
	path, err := v.run(ctx, "vol-path", "--pool", vol.pool, vol.name)
	if err != nil {
		return false, err
	}
	all, err := v.volumes(ctx, "")
	if err != nil {
		return false, err
	}
	for _, other := range all {
		if other == vol {
			continue
		}
		xml, err := v.run(ctx, "vol-dumpxml", "--pool", other.pool, other.name)
		if err != nil {
			return false, err
		}
		if _, backing, ok := strings.Cut(xml, "<backingStore>"); ok && strings.Contains(backing, "<path>"+strings.TrimSpace(path)+"</path>") {
			return true, nil
		}
	}
	return false, nil
}

// imagePrefix begins the names that vagrant-libvirt gives to the volumes of a
// box (its action/handle_box_image.rb).
func imagePrefix(box, version string) string {
	prefix := strings.ReplaceAll(box, "/", "-VAGRANTSLASH-") + "_vagrant_box_image_"
	if version != "" {
		prefix += version + "_"
	}
	return prefix
}
