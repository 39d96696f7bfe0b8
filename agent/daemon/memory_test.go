//go:build linux

package daemon

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Of a dynamically linked program on Linux 6.18, with the fields that count: its
// code, what the linker has written to, memory, a library's code, swapped out
// constants, and what the kernel maps.
const someMaps = `56226e8d7000-56226e8dc000 r-xp 00002000 fe:00 247026                     /usr/bin/cat
Size:                 20 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
56226e8df000-56226e8e0000 r--p 00009000 fe:00 247026                     /usr/bin/cat
Anonymous:             4 kB
Swap:                  0 kB
VmFlags: rd mr mw me ac
56226e8e0000-56226e8e1000 rw-p 0000a000 fe:00 247026                     /usr/bin/cat
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac
56227c5f2000-56227c613000 rw-p 00000000 00:00 0                          [heap]
Anonymous:             8 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me ac
7f52d0a26000-7f52d0b7c000 r-xp 00026000 fe:00 263215                     /usr/lib/x86_64-linux-gnu/libc.so.6 (deleted)
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
7f52d0bce000-7f52d0bd2000 r--p 001cd000 fe:00 263215                     /usr/lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
Swap:                 16 kB
VmFlags: rd mr mw me ac
7ffd3a1f9000-7ffd3a1fd000 r--p 00000000 00:00 0                          [vvar]
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr pf io de dd
`

func TestDroppable(t *testing.T) {
	want := []region{{0x56226e8d7000, 0x56226e8dc000}, {0x7f52d0a26000, 0x7f52d0b7c000}}
	if got := droppable(strings.NewReader(someMaps)); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestGiveBack uses, after it, what a process that is linked dynamically needs
// its libraries for: threads.
func TestGiveBack(t *testing.T) {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer smaps.Close()
	if len(droppable(smaps)) == 0 {
		t.Error("there is nothing to give back")
	}
	giveBack()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			_, _ = os.ReadFile("/proc/self/comm")
		})
	}
	all.Wait()
}
