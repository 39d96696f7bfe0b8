//go:build linux

package daemon

import (
	"bufio"
	"fmt"
	"io"
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
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	for _, r := range droppable(smaps) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED)
	}
}

// region is a range of addresses.
type region struct{ start, end uintptr }

// droppable are the mappings in an smaps (proc(5)) that cannot be written to and
// hold just what their files hold: to drop their pages loses nothing. What was
// written to once, as the dynamic linker does before it takes away the right to
// (RELRO), is not among them.
func droppable(smaps io.Reader) []region {
	var found []region
	var at region
	var clean bool
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		switch name, field := strings.CutSuffix(words[0], ":"); {
		case !field:
			at, clean = fromFile(words)
		case name == "Anonymous", name == "Swap":
			clean = clean && words[1] == "0"
		case name == "VmFlags" && clean: // the last one
			found = append(found, at)
		}
	}
	return found
}

// fromFile reads the first line of a mapping, in words: whether it is of a file
// and cannot be written to.
func fromFile(words []string) (at region, ok bool) {
	if len(words) < 6 || !strings.HasPrefix(words[5], "/") || strings.Contains(words[1], "w") {
		return at, false
	}
	_, err := fmt.Sscanf(words[0], "%x-%x", &at.start, &at.end)
	return at, err == nil && at.end > at.start
}
