//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/bpf"
)

// kernel is what was found out by trying.
type kernel struct {
	features bpf.Features
	tcx      bool
	missing  []string
}

// probeKernel tries what the datapath can do without. An error means that it
// cannot work at all.
func probeKernel() (kernel, error) {
	var k kernel
	if err := features.HaveMapType(ebpf.RingBuf); err != nil {
		return k, fmt.Errorf("look for the ring buffer: %w (the datapath needs Linux 5.15 or newer)", err)
	}
	var err error
	if k.features, err = bpf.Probe(); err != nil {
		k.missing = append(k.missing, "not all could be found out, so the slower way is taken: "+err.Error())
	}
	if !k.features.KernelContext {
		k.missing = append(k.missing, "bpf_cast_to_kern_ctx (Linux 6.2): a translated packet costs some 40 ns more")
	}
	if k.features.HZ == 0 {
		k.missing = append(k.missing, "the length of a jiffy: each packet costs 14 ns more")
	}
	if !k.features.SetRetval {
		k.missing = append(k.missing, "bpf_set_retval (Linux 5.18): a refused connect says \"operation not permitted\", not \"no route to host\"")
	}
	if k.tcx, err = haveTCX(); err != nil {
		return k, err
	}
	if !k.tcx {
		k.missing = append(k.missing, missingTCX)
	}
	return k, nil
}

const missingTCX = "TCX (Linux 6.6): programs are attached as clsact filters, which anybody may delete or precede"

// haveTCX attaches to a device that does not exist: a kernel with TCX complains
// of the device.
func haveTCX() (bool, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		return false, fmt.Errorf("load a program: %w (the agent needs CAP_BPF and CAP_NET_ADMIN)", err)
	}
	defer program.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: program, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		return true, l.Close()
	}
	return !errors.Is(err, ebpf.ErrNotSupported), nil
}

// netnsCookie names the network namespace of the thread that calls.
func netnsCookie() (uint64, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("ask for the cookie of the network namespace: %w", err)
	}
	return cookie, nil
}

// haveSockAddr says whether the kernel runs programs at connect.
func haveSockAddr() error {
	if err := features.HaveProgramType(ebpf.CGroupSockAddr); err != nil {
		return fmt.Errorf("programs for sockets: %w (the kernel needs CONFIG_CGROUP_BPF)", err)
	}
	return nil
}
