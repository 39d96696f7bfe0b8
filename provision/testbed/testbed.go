//go:build linux && amd64

package testbed

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Bed is a place for real machines, seen from inside.
type Bed struct {
	// Dir is a directory on disk that goes away with the bed.
	Dir string
	// Box is the name of the test box, which Vagrant knows there.
	Box string
}

// The variables that tell a program that Enter executed anew where it is.
const (
	roleVariable = "LABCTL_TESTBED_ROLE"
	dirVariable  = "LABCTL_TESTBED_DIR"
	boxVariable  = "LABCTL_TESTBED_BOX"
)

const (
	roleInit   = "init"   // the first process of the bed's process namespace
	roleInside = "inside" // its child, the program itself
)

// tools are what a bed needs, by the Debian package that holds each.
var tools = [][2]string{
	{"vagrant", "vagrant"}, {"libvirtd", "libvirt-daemon-system"}, {"virsh", "libvirt-clients"}, {"dnsmasq", "dnsmasq-base"},
	{"qemu-system-x86_64", "qemu-system-x86"}, {"qemu-img", "qemu-utils"}, {"mmdebstrap", "mmdebstrap"},
	{"mke2fs", "e2fsprogs"}, {"ssh-keygen", "openssh-client"}, {"iptables", "iptables"},
}

// Enter makes a bed and runs inside there, in a process of its own with this
// program's arguments, environment and streams; it returns what is to be given
// to os.Exit. Whoever calls it does so first of all: outside, it is the whole
// program. When it returns outside, all processes of the bed are gone, and its
// files.
func Enter(inside func(Bed) int) int {
	var code int
	var err error
	switch os.Getenv(roleVariable) {
	case roleInit:
		code, err = beInit(os.Getenv(dirVariable))
	case roleInside:
		code, err = beInside(Bed{Dir: os.Getenv(dirVariable), Box: boxName}, os.Getenv(boxVariable), inside)
	default:
		code, err = beOutside()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "test bed:", err)
		return 1
	}
	return code
}

func beOutside() (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fit(); err != nil {
		return 0, err
	}
	cache, err := cacheDir()
	if err != nil {
		return 0, err
	}
	box, err := buildBox(ctx, cache)
	if err != nil {
		return 0, fmt.Errorf("build the box: %w", err)
	}
	dir, release, err := newDir(cache)
	if err != nil {
		return 0, err
	}
	defer release()
	cmd := executeAnew(ctx, roleInit, dirVariable+"="+dir, boxVariable+"="+box)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	return exitCode(cmd.Run())
}

// fit says all that is missing at once.
func fit() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root (run it by sudo -E)")
	}
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool[0]); err != nil {
			missing = append(missing, tool[1])
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("needs packages: %s (make tools installs them)", strings.Join(missing, " "))
	}
	return nil
}

func executeAnew(ctx context.Context, role string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func exitCode(err error) (int, error) {
	if exit, ok := err.(*exec.ExitError); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// cacheDir is where boxes are kept between runs, and beds while they are used.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "labctl-testbed")
	return cache, os.MkdirAll(cache, 0o755)
}

// newDir makes a bed's directory, and removes those that others were killed in:
// who uses one holds its lock. It is not below /tmp, which may be memory.
func newDir(cache string) (dir string, release func(), err error) {
	old, err := filepath.Glob(filepath.Join(cache, "bed-*.lock"))
	if err != nil {
		return "", nil, err
	}
	for _, file := range old {
		lock := flock.New(file)
		if free, err := lock.TryLock(); err == nil && free {
			_ = os.RemoveAll(strings.TrimSuffix(file, ".lock")) // tried anew by the next one
			_ = os.Remove(file)
			_ = lock.Close()
		}
	}
	dir = filepath.Join(cache, fmt.Sprintf("bed-%d-%d", os.Getpid(), time.Now().UnixNano()))
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLock(); err != nil {
		return "", nil, err
	}
	release = func() {
		_ = os.RemoveAll(dir) // what stays is removed by the next one
		_ = os.Remove(dir + ".lock")
		_ = lock.Close()
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		release()
		return "", nil, err
	}
	return dir, release, nil
}
