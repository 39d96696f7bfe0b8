//go:build linux

package netns_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is the state of the machine's own namespace: links, addresses, routes,
// rules, neighbours, packet filters, and every sysctl of the network.
func machine(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, command := range []string{
		"ip -o -d link", "ip -o addr", "ip route show table all", "ip -6 route show table all", "ip rule", "ip -o neigh show nud permanent",
		"bridge fdb", "nft list ruleset", "hostname",
	} {
		argv := strings.Fields(command)
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		b.WriteString("# " + command + "\n" + string(out))
	}
	for _, root := range []string{"/proc/sys/net/ipv4", "/proc/sys/net/ipv6", "/proc/sys/net/bridge"} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Base(path) == "flush" || strings.Contains(path, "tcp_fastopen_key") {
				return nil
			}
			value, err := os.ReadFile(path)
			if err == nil {
				b.WriteString(path + " = " + strings.TrimSpace(string(value)) + "\n")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
