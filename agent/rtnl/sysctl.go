//go:build linux

package rtnl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ProcSys reads and writes the files under /proc/sys. What it sees under net/
// is the network namespace of the thread that calls.
type ProcSys struct{}

// Read returns the value of name (net/ipv4/ip_forward), without the newline.
func (ProcSys) Read(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", err
	}
	value, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(value)), nil
}

// Write sets name to value.
func (ProcSys) Write(name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	// Neither created nor truncated: the file is the kernel's.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func sysctlPath(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("sysctl %q is not a path below /proc/sys", name)
	}
	return filepath.Join("/proc/sys", name), nil
}
