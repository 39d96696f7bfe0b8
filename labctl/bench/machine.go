//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the numbers were measured on.
type Machine struct {
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu,omitempty"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Loads are the load averages of the last minute, before each part and at the end.
	Loads []Load `json:"loads"`
	// Busy means that before some part the load was above the number of CPUs. The
	// last load does not count: large labs make it themselves.
	Busy bool          `json:"busy"`
	Took time.Duration `json:"tookNanoseconds"`

	start time.Time
}

// Load is a load average, and when it was.
type Load struct {
	When string  `json:"when"`
	Load float64 `json:"load"`
}

func lookAtMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), CPU: cpuModel(), Go: runtime.Version(), start: time.Now()}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// before notes the load before a part.
func (m *Machine) before(part string) {
	l := Load{"before " + part, load()}
	m.Loads = append(m.Loads, l)
	m.Busy = m.Busy || l.Load > float64(m.CPUs)
}

// finish looks once more, when all is measured.
func (m *Machine) finish() {
	m.Loads = append(m.Loads, Load{"at the end", load()})
	m.Took = time.Since(m.start)
}

func (m Machine) String() string {
	var loads []string
	for _, l := range m.Loads {
		loads = append(loads, fmt.Sprintf("%.2f %s", l.Load, l.When))
	}
	state := "The machine was not busy."
	if m.Busy {
		state = "The machine was BUSY: the load was above its CPUs."
	}
	return fmt.Sprintf("%d CPUs (%s), kernel %s, %s; %.0f s. Load: %s. %s",
		m.CPUs, m.CPU, m.Kernel, m.Go, m.Took.Seconds(), strings.Join(loads, ", "), state)
}

// load is the first number of /proc/loadavg; -1 where it cannot be read.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(text), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}

// cpuModel is as /proc/cpuinfo has it on this architecture, or the architecture.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it there is less to say
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
