//go:build linux

package bpf

import (
	"fmt"
	"math"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Ages after which a flow without packets is over: its place in the map may be
// taken, and the agent should remove it. As Cilium has them.
const (
	AgeTCP     = 8000 * time.Second
	AgeSYN     = 60 * time.Second
	AgeAny     = 60 * time.Second // UDP and ICMP
	AgeClosing = 10 * time.Second
)

// Clock is how the datapath of one kernel tells time: the unit of the fields
// Seen, Born and NatSeen in the maps, and of Frontend.Affinity. The zero value
// is not a Clock; Features.Clock makes one.
type Clock struct {
	hz    uint64 // 0: a tick is 2^30 ns of CLOCK_MONOTONIC
	shift uint8
}

// Clock is that of programs which are loaded with these features.
func (f Features) Clock() Clock {
	c := Clock{hz: uint64(f.HZ)}
	for f.HZ > 1 && 1<<c.shift < f.HZ*3/4 {
		c.shift++
	}
	return c
}

// Tick is the length of a tick: between 3/4 and 3/2 of a second.
func (c Clock) Tick() time.Duration {
	if c.shift == 0 {
		return 1 << 30
	}
	return time.Duration(uint64(time.Second) << c.shift / c.hz)
}

// Ticks are how many make up d, rounded up.
func (c Clock) Ticks(d time.Duration) uint32 {
	return uint32((d + c.Tick() - 1) / c.Tick())
}

// Now is the tick that entries are stamped with now; it may be one off.
func (c Clock) Now() (uint32, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read CLOCK_MONOTONIC: %w", err)
	}
	if c.shift == 0 {
		return uint32(now.Nano() >> 30), nil
	}
	// The kernel starts jiffies five minutes before 2^32, to find who cannot
	// bear that they wrap (INITIAL_JIFFIES).
	jiffies := uint64(now.Sec)*c.hz + uint64(now.Nsec)*c.hz/uint64(time.Second)
	return uint32((1<<32 - 300*c.hz + jiffies) >> c.shift), nil
}

// Age is how long ago an entry was stamped with the tick seen.
func (c Clock) Age(now, seen uint32) time.Duration {
	age := int32(now - seen) // the stamp may be newer than the clock was read
	return max(0, time.Duration(age)*c.Tick())
}

// probeHZ finds the length of a jiffy by how many there have been: their number
// and CLOCK_MONOTONIC advance together since boot. Kernels are built with 100,
// 250, 300 or 1000 a second; for any other the answer is 0.
func probeHZ() (uint32, error) {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{
			asm.FnJiffies64.Call(),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.LoadMem(asm.R0, asm.RFP, -8, asm.Word),
			asm.Return(),
		},
	})
	if err != nil {
		return 0, err
	}
	defer program.Close()
	// Five minutes after boot all predict the same number: wait until not.
	for range 10 {
		now, err := program.Run(&ebpf.RunOptions{Data: make([]byte, 14)})
		if err != nil {
			return 0, err
		}
		var uptime unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &uptime); err != nil {
			return 0, err
		}
		if hz, sure := nearestHZ(now, time.Duration(uptime.Nano())); sure {
			return hz, nil
		}
		time.Sleep(500 * time.Millisecond)
	}
	return 0, nil
}

// nearestHZ is the HZ whose count of jiffies at that uptime is nearest to the
// one seen, and whether no other comes close.
func nearestHZ(jiffies uint32, uptime time.Duration) (nearest uint32, sure bool) {
	best, second := int64(math.MaxInt64), int64(math.MaxInt64)
	for _, hz := range []uint32{100, 250, 300, 1000} {
		predicted := uint32(int64(uptime/time.Microsecond)*int64(hz)/1e6 - 300*int64(hz))
		off := int64(int32(jiffies - predicted))
		if off = max(off, -off); off < best {
			best, second, nearest = off, best, hz
		} else {
			second = min(second, off)
		}
	}
	return nearest, second > 4*best+64
}
