//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

// TestJudgeBPF wants each refusal told with what mends it; tests run as root.
func TestJudgeBPF(t *testing.T) {
	if testing.Short() {
		t.Skip("the cures are root's")
	}
	works := func() error { return nil }
	lacks := func() error { return unix.ENOENT }
	const no = "; a lab with pods cannot work here"
	for _, test := range []struct {
		got  provision.Finding
		want string
		err  error
	}{
		{judgeBPF(provision.Missing, nil), "ok BPF:  ()", nil},
		{judgeBPF(provision.Missing, os.NewSyscallError("bpf", unix.EPERM)),
			"missing BPF: bpf: operation not permitted (give this container or session CAP_BPF and bpf(2), such as docker run --privileged --ulimit memlock=-1)", provision.ErrPermission},
		{judgeBPF(provision.Warning, unix.ENOSYS),
			"warning BPF: function not implemented" + no + " (use a kernel with CONFIG_BPF_SYSCALL)", nil},
		{judgePins(provision.Missing, unix.ENODEV),
			"missing BPF file system: no such device (use a kernel with CONFIG_BPF_SYSCALL)", provision.ErrUnsupported},
		{judgePins(provision.Missing, unix.EPERM), "missing BPF file system: operation not permitted (" + rightsCure() + ")", provision.ErrPermission},
		{judgeHooks(provision.Missing, nil, lacks), "ok BPF on links: TCX ()", nil},
		{judgeHooks(provision.Missing, unix.EINVAL, works), "ok BPF on links: clsact; TCX comes with Linux 6.6 ()", nil},
		{judgeHooks(provision.Missing, unix.EINVAL, lacks),
			"missing BPF on links: neither TCX (Linux 6.6) nor clsact: no such file or directory (sudo modprobe sch_ingress cls_bpf)", provision.ErrUnsupported},
		{judgeTypes(true), "ok BTF: /sys/kernel/btf/vmlinux ()", nil},
		{judgeTypes(false), "warning BTF: no /sys/kernel/btf/vmlinux: programs that read the kernel's own structures do not load, labctl's own do " +
			"(use a kernel with CONFIG_DEBUG_INFO_BTF)", nil},
		{judgeCgroups("/cg", nil), "ok cgroup2: /cg ()", nil},
		{judgeCgroups("", unix.EPERM), "warning cgroup2: operation not permitted: services are balanced by tc only, not at the socket " +
			"(give this container a cgroup hierarchy of its own, such as docker run --privileged --cgroupns private)", nil},
		{judgeCgroups("/cg", unix.EROFS), "warning cgroup2: read-only file system: services are balanced by tc only, not at the socket (sudo mount -o remount,rw /cg)", nil},
	} {
		f := test.got
		if got := fmt.Sprintf("%s %s: %s (%s)", f.Severity, f.Subject, f.Detail, f.Cure); got != test.want || !errors.Is(f.Err, test.err) {
			t.Errorf("got %s, %v\nwant %s, %v", got, f.Err, test.want, test.err)
		}
	}
}

// TestProbes asks this machine, and for what no machine has.
func TestProbes(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	if err := errors.Join(createMap(), mountable("bpf"), mountable("cgroup2"), tryClsact()); err != nil {
		t.Error(err)
	}
	if err := mountable("no-such-file-system"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a file system that is not there: %v", err)
	}
	if err := registered("bpf"); err != nil {
		t.Error(err)
	}
	if err := registered("no-such-file-system"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a file system that is not there: %v", err)
	}
	_, err := bpfCall(unix.BPF_MAP_CREATE, &struct{ kind, keySize, valueSize, entries uint32 }{kind: 1 << 20})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("a kind of map that is not there: %v", err)
	}
	if f := New(Options{}).tryCgroups(); f.Severity != provision.Fine || strings.HasPrefix(f.Detail, "/run/") {
		t.Errorf("%+v", f)
	}
}

func BenchmarkPreflight(b *testing.B) {
	lab := shippedLab(b, "x")
	p := New(Options{})
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			p.Preflight(b.Context(), lab)
		}
	})
	b.Run("BPF", func(b *testing.B) {
		for b.Loop() {
			p.tryBPF(lab)
		}
	})
}
