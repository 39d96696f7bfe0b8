//go:build linux

package daemon

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// calmDown is how long nothing must be asked of an agent until it gives back
// what it took to answer.
const calmDown = 3 * time.Second

// giveBack returns memory that only starting, decoding and loading needed: the
// garbage, and the pages of the executable, which the kernel maps by the dozen
// around each one that is touched. Those that are needed again are mapped again
// from the page cache. An error leaves things as they are.
func giveBack() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		start, end, ok := ownPages(lines.Text())
		if ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
	}
}

// ownPages finds in a line of /proc/self/maps (proc(5)) what is mapped from a
// file and cannot be written to: to drop such pages loses nothing.
func ownPages(line string) (start, end uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || strings.Contains(fields[1], "w") {
		return 0, 0, false
	}
	_, err := fmt.Sscanf(fields[0], "%x-%x", &start, &end)
	return start, end, err == nil && end > start
}
