//go:build linux

package metrics

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process returns a source that tells of this process, in the names of
// Prometheus' own client libraries, and of the agent's version.
func Process(version string) func(*Writer) {
	started := float64(time.Now().UnixMilli()) / 1000
	return func(w *Writer) {
		w.Gauge("cilium_version", "The agent's version, in the label.", 1, "version", version)
		w.Gauge("go_info", "The version of Go, in the label.", 1, "version", runtime.Version())
		w.Gauge("go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine()))
		w.Gauge("process_start_time_seconds", "When the process began, in seconds since 1970.", started)
		// What cannot be read is left out, as those libraries do.
		if seconds, err := cpuSeconds(); err == nil {
			w.Counter("process_cpu_seconds_total", "CPU time used, user and system, in seconds.", seconds)
		}
		if virtual, resident, err := memory(); err == nil {
			w.Gauge("process_virtual_memory_bytes", "Virtual memory, in bytes.", virtual)
			w.Gauge("process_resident_memory_bytes", "Resident memory, in bytes.", resident)
		}
		if open, err := openFiles(); err == nil {
			w.Gauge("process_open_fds", "Open file descriptors.", open)
		}
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
			w.Gauge("process_max_fds", "File descriptors that may be open.", float64(limit.Cur))
		}
	}
}

func cpuSeconds() (float64, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, err
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9, nil
}

// memory reads proc_pid_statm(5), which counts pages.
func memory() (virtual, resident float64, err error) {
	const file = "/proc/self/statm"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("%s: %q", file, text)
	}
	var bytes [2]float64
	for i := range bytes {
		pages, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", file, err)
		}
		bytes[i] = float64(pages) * float64(os.Getpagesize())
	}
	return bytes[0], bytes[1], nil
}

func openFiles() (float64, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	return float64(len(entries) - 1), nil // but for the directory itself
}
