//go:build linux

package listen

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that serves port in the calling thread's network
// namespace, or nothing where none is found.
func holder(protocol string, port uint16) string {
	inodes := serving("/proc/thread-self/net/"+protocol, protocol, port)
	if len(inodes) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !inodes[target] {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		return fmt.Sprintf("%s has it, process %s", strings.TrimSpace(string(name)), filepath.Base(process))
	}
	return ""
}

// serving reads a table of sockets as proc_pid_net(5) has it, for those that
// wait on port, as the links in /proc/PID/fd name them.
func serving(table, protocol string, port uint16) map[string]bool {
	const listening, unconnected = "0A", "07" // TCP_LISTEN; TCP_CLOSE, which UDP uses
	want := map[string]string{"tcp": listening, "udp": unconnected}[protocol]
	file, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer file.Close()
	found := map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != want {
			continue
		}
		_, local, _ := strings.Cut(fields[1], ":")
		if n, err := strconv.ParseUint(local, 16, 16); err == nil && uint16(n) == port {
			found["socket:["+fields[9]+"]"] = true
		}
	}
	return found
}
