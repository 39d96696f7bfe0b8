//go:build linux

package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// tryBPF looks at what services and pods need, by using it. What a lab without
// pods can do without is a warning.
func (p *Provider) tryBPF(t *topo.Topology) []provision.Finding {
	lacking := provision.Warning
	for _, node := range t.Nodes.All() {
		if node.PodCIDR.IsValid() {
			lacking = provision.Missing
		}
	}
	return []provision.Finding{
		judgeBPF(lacking, createMap()),
		judgePins(lacking, mountable("bpf")),
		judgeHooks(lacking, queryTCX(), tryClsact),
		judgeTypes(exists(kernelTypes)),
		p.tryCgroups(),
	}
}

const otherKernel = "use a kernel with %s"

// lacks is a finding of what is not there.
func lacks(severity provision.Severity, subject string, err error, cure string) provision.Finding {
	f := provision.Finding{Severity: severity, Subject: subject, Detail: err.Error(), Cure: cure}
	if severity == provision.Missing {
		f.Err = class(err)
	}
	if severity == provision.Warning {
		f.Detail += "; a lab with pods cannot work here"
	}
	return f
}

// createMap makes the smallest map there is, and lets go of it.
func createMap() error {
	fd, err := bpfCall(unix.BPF_MAP_CREATE, &struct{ kind, keySize, valueSize, entries uint32 }{unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1})
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// queryTCX asks what hangs on lo, which only a kernel with TCX understands.
func queryTCX() error {
	_, err := bpfCall(unix.BPF_PROG_QUERY, &struct {
		ifindex, attachType, query, flags uint32
		ids                               uint64
		count, _                          uint32
		rest                              [4]uint64
	}{ifindex: 1, attachType: unix.BPF_TCX_INGRESS})
	if errors.Is(err, unix.ENOENT) {
		return nil // nothing hangs there
	}
	return err
}

// bpfCall is bpf(2); attributes is the command's part of union bpf_attr.
func bpfCall[T any](command uintptr, attributes *T) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attributes)), unsafe.Sizeof(*attributes))
	if errno != 0 {
		return 0, os.NewSyscallError("bpf", errno)
	}
	return int(fd), nil
}

func judgeBPF(lacking provision.Severity, err error) provision.Finding {
	const subject = "BPF"
	switch {
	case err == nil:
		return provision.Finding{Severity: provision.Fine, Subject: subject}
	case errors.Is(err, unix.ENOSYS):
		return lacks(lacking, subject, err, fmt.Sprintf(otherKernel, "CONFIG_BPF_SYSCALL"))
	case os.Geteuid() != 0:
		return lacks(lacking, subject, err, "sudo labctl up (kernel.unprivileged_bpf_disabled leaves BPF to root)")
	case lockedDown():
		return lacks(lacking, subject, err, "boot without lockdown=confidentiality (cat "+lockdownPath+")")
	default:
		// Before Linux 5.11 maps count as locked memory.
		return lacks(lacking, subject, err, "give this container or session CAP_BPF and bpf(2), such as docker run --privileged --ulimit memlock=-1")
	}
}

const lockdownPath = "/sys/kernel/security/lockdown"

func lockedDown() bool {
	text, err := os.ReadFile(lockdownPath)
	return err == nil && bytes.Contains(text, []byte("[confidentiality]"))
}

// mountable makes a mount that is nowhere and goes away with its last descriptor.
func mountable(kind string) error {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return registered(kind) // before Linux 5.2
	}
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mount)
	var on unix.Statfs_t
	if err := unix.Fstatfs(mount, &on); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if on.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	return nil
}

func registered(kind string) error {
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if !strings.Contains("\n"+string(known), "\t"+kind+"\n") {
		return unix.ENODEV
	}
	return nil
}

func judgePins(lacking provision.Severity, err error) provision.Finding {
	const subject = "BPF file system"
	switch {
	case err == nil:
		return provision.Finding{Severity: provision.Fine, Subject: subject}
	case errors.Is(err, unix.ENODEV):
		return lacks(lacking, subject, err, fmt.Sprintf(otherKernel, "CONFIG_BPF_SYSCALL"))
	default:
		return lacks(lacking, subject, err, rightsCure())
	}
}

func judgeHooks(lacking provision.Severity, tcx error, tryClsact func() error) provision.Finding {
	const subject = "BPF on links"
	if tcx == nil {
		return provision.Finding{Severity: provision.Fine, Subject: subject, Detail: "TCX"}
	}
	if err := tryClsact(); err != nil {
		return lacks(lacking, subject, fmt.Errorf("neither TCX (Linux 6.6) nor clsact: %w", err), "sudo modprobe sch_ingress cls_bpf")
	}
	return provision.Finding{Severity: provision.Fine, Subject: subject, Detail: "clsact; TCX comes with Linux 6.6"}
}

// tryClsact works in a namespace that ends with its thread.
func tryClsact() error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer handle.Close()
		return handle.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: 1, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}})
	})
}

// kernelTypes is where a kernel with CONFIG_DEBUG_INFO_BTF says its types.
const kernelTypes = "/sys/kernel/btf/vmlinux"

func judgeTypes(there bool) provision.Finding {
	if there {
		return provision.Finding{Severity: provision.Fine, Subject: "BTF", Detail: kernelTypes}
	}
	return provision.Finding{Severity: provision.Warning, Subject: "BTF",
		Detail: "no " + kernelTypes + ": programs that read the kernel's own structures do not load, labctl's own do",
		Cure:   fmt.Sprintf(otherKernel, "CONFIG_DEBUG_INFO_BTF")}
}

// probeCgroup is made for a moment; one that a run left is used again.
const probeCgroup = "labctl@preflight"

// tryCgroups makes a cgroup where the labs' would be.
func (p *Provider) tryCgroups() provision.Finding {
	root := p.options.cgroupRoot()
	if root == "" {
		if err := mountable("cgroup2"); err != nil {
			return judgeCgroups(root, fmt.Errorf("no cgroup2 hierarchy that can be written, nor mounted: %w", err))
		}
		return judgeCgroups(p.options.ownCgroups(), nil)
	}
	dir := filepath.Join(root, probeCgroup)
	if err := makeDir(dir, 0o755); err != nil {
		return judgeCgroups(root, err)
	}
	kind, err := os.ReadFile(filepath.Join(dir, "cgroup.type"))
	_ = unix.Rmdir(dir)
	if err == nil && string(bytes.TrimSpace(kind)) != "domain" {
		err = fmt.Errorf("a cgroup in %s is of type %q, which takes no processes", root, bytes.TrimSpace(kind))
	}
	if errors.Is(err, os.ErrNotExist) {
		err = nil // another preflight has removed it meanwhile
	}
	return judgeCgroups(root, err)
}

func judgeCgroups(root string, err error) provision.Finding {
	if err == nil {
		return provision.Finding{Severity: provision.Fine, Subject: "cgroup2", Detail: root}
	}
	cure := "sudo mount -o remount,rw " + root
	if root == "" || !errors.Is(err, unix.EROFS) {
		cure = "give this container a cgroup hierarchy of its own, such as docker run --privileged --cgroupns private"
	}
	return provision.Finding{Severity: provision.Warning, Subject: "cgroup2",
		Detail: err.Error() + ": services are balanced by tc only, not at the socket", Cure: cure}
}
