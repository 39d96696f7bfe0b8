//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/native-routing/labctl/labctl/cli"
)

// topologiesDir is absolute: scripts run elsewhere.
var topologiesDir = func() string {
	dir, err := filepath.Abs("../topologies")
	if err != nil {
		panic(err)
	}
	return dir
}()

// takeDown removes a lab that a test may have left.
func takeDown(lab, dir string) {
	cli.Run(context.Background(), cli.Program{
		In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, HandOver: func() {},
		Getenv: func(string) string { return "" },
	}, []string{"down", "--lab", lab, "--data-dir", filepath.Join(dir, "data"), "--run-dir", filepath.Join(dir, "run")})
}

// leftOf looks for what bears a lab's mark, by means of its own: mounts,
// namespaces, processes and files.
func leftOf(lab, dir string) []string {
	var left []string
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), dir) || strings.Contains(string(mounts), "labctl."+lab) {
		left = append(left, "a mount")
	}
	for _, pattern := range []string{"/run/netns/labctl." + lab + "*", "/etc/netns/labctl." + lab + "*", dir + "/data/*", dir + "/run/*", "/sys/fs/cgroup/labctl." + lab, "/sys/fs/cgroup/unified/labctl." + lab} {
		found, _ := filepath.Glob(pattern) // the patterns are well formed
		left = append(left, found...)
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		if environ, err := os.ReadFile(file); err == nil && strings.Contains(string(environ), "LABCTL_LAB="+lab+"\x00") {
			left = append(left, filepath.Dir(file))
		}
	}
	return left
}

// copyLab writes a shipped topology under another name, its workloads beside it.
func copyLab(shipped, name, file string) error {
	data, err := os.ReadFile(filepath.Join(topologiesDir, shipped+".yaml"))
	if err != nil {
		return err
	}
	named := strings.Replace(string(data), "name: "+shipped, "name: "+name, 1)
	if named == string(data) {
		return fmt.Errorf("%s does not say its name", shipped)
	}
	workloads := filepath.Join(filepath.Dir(file), "workloads")
	if _, err := os.Stat(workloads); err != nil {
		if err := os.CopyFS(workloads, os.DirFS(filepath.Join(topologiesDir, "workloads"))); err != nil {
			return err
		}
	}
	return os.WriteFile(file, []byte(named), 0o644)
}
