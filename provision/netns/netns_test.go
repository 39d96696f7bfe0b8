//go:build linux

package netns_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/providertest"
)

func TestProvider(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	before := machine(t)
	t.Cleanup(func() {
		if after := machine(t); after != before {
			t.Errorf("the machine's own network changed:\nbefore:\n%s\nafter:\n%s", before, after)
		}
	})
	providertest.Run(t, providertest.Subject{
		New:      func(*testing.T) provision.Provider { return netns.New(netns.Options{}) },
		Machines: true,
		Residue:  residue,
	})
}

// residue looks for the lab's name wherever it could be, by other means than
// the provider's.
func residue(t *testing.T, lab string) []string {
	t.Helper()
	var left []string
	for _, pattern := range []string{"/run/labctl/" + lab, "/var/lib/labctl/" + lab, "/run/netns/labctl." + lab + "*",
		"/etc/netns/labctl." + lab + "*", "/tmp/*" + lab + "*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, lab+"/") {
			left = append(left, "mount: "+line)
		}
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), lab) {
			left = append(left, path)
		}
		return nil // a cgroup that goes meanwhile is none of this lab's
	})
	if err != nil {
		t.Fatal(err)
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environs {
		if environ, err := os.ReadFile(path); err == nil && strings.Contains(string(environ), "LABCTL_LAB="+lab+"\x00") {
			left = append(left, path)
		}
	}
	return left
}
