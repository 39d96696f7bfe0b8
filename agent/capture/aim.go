//go:build linux

package capture

import (
	"fmt"
	"math"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/rtnl"
)

// aim keeps a socket's filter on the devices that are wanted: they are known to
// the kernel by numbers, which change when a device is made anew.
type aim struct {
	fd      int
	devices []string
	user    []bpf.RawInstruction
	watch   *rtnl.Watch // nil where all devices are wanted

	mu    sync.Mutex
	ended bool
}

// maxDevices keeps jumps over the devices short enough for classic BPF.
const maxDevices = 100

func newAim(fd int, o Options) (*aim, error) {
	a := &aim{fd: fd, devices: o.Devices, user: o.Filter}
	if len(o.Devices) > maxDevices {
		return nil, fmt.Errorf("%d devices: at most %d are captured on by name: %w", len(o.Devices), maxDevices, unix.E2BIG)
	}
	if len(a.devices) == 0 {
		return a, a.take()
	}
	var err error
	if a.watch, err = rtnl.NewWatch(netns.None(), 0); err != nil {
		return nil, err
	}
	if err := a.take(); err != nil {
		a.close()
		return nil, err
	}
	go func() {
		for a.watch.Wait() == nil {
			_ = a.take() // the filter that was accepted once is accepted again
		}
	}()
	return a, nil
}

// take attaches the filter for the devices as they are now.
func (a *aim) take() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return nil
	}
	program, err := bpf.Assemble(gate(a.indexes()))
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	user := a.user
	if len(user) == 0 {
		user = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: math.MaxInt32}}
	}
	return Attach(a.fd, append(program, user...))
}

// indexes are the numbers of the wanted devices that are there; nil for all.
func (a *aim) indexes() []uint32 {
	if len(a.devices) == 0 {
		return nil
	}
	indexes := []uint32{}
	for _, name := range a.devices {
		if index, err := deviceIndex(a.fd, name); err == nil {
			indexes = append(indexes, uint32(index))
		}
	}
	return indexes
}

// gate is what runs before the user's program: it lets packets of the devices
// pass, and of lo only those that come in, for the others are the same ones.
func gate(indexes []uint32) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: loopback, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	if indexes == nil {
		return program
	}
	program = append(program, bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
	for i, index := range indexes {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: index, SkipTrue: uint8(len(indexes) - i)})
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// end lets no packet pass any more.
func (a *aim) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true
	_ = Attach(a.fd, []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}})
}

func (a *aim) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ended = true // the descriptor's number may soon be another's
	if a.watch != nil {
		_ = a.watch.Close()
	}
}
