//go:build linux && amd64

package vmtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func decode(t *testing.T, shown, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in:\n%s", err, shown)
	}
}

func testDown(u user, before []string) {
	if out, errs, code := u.try("down"); code != 0 {
		log, _ := os.ReadFile(filepath.Join(u.dir, "data", labName, "vagrant", "vagrant.log")) // gone where it got that far
		u.t.Errorf("down: exit %d\n%s%s\n%s", code, out, errs, log[max(0, len(log)-4000):])
	}
	for _, left := range leftOf(u.t, u) {
		if !slices.Contains(before, left) {
			u.t.Errorf("left behind: %s", left)
		}
	}
}

// leftOf lists what a lab could leave: libvirt's domains, networks and volumes,
// links, files, and processes, which are all those of the bed.
func leftOf(t *testing.T, u user) []string {
	t.Helper()
	var found []string
	add := func(kind, names string) {
		for name := range strings.FieldsSeq(names) {
			found = append(found, kind+" "+name)
		}
	}
	add("domain", run(t, "virsh", "list", "--all", "--name"))
	add("network", run(t, "virsh", "net-list", "--all", "--name"))
	for pool := range strings.FieldsSeq(run(t, "virsh", "pool-list", "--all", "--name")) {
		for line := range strings.Lines(run(t, "virsh", "vol-list", pool)) {
			if fields := strings.Fields(line); len(fields) == 2 && strings.HasPrefix(fields[1], "/") {
				add("volume", fields[1])
			}
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		add("link", link.Name())
	}
	for _, dir := range []string{filepath.Join(u.dir, "data"), u.runDir()} {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			found = append(found, "file "+file)
		}
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		switch strings.TrimSpace(string(name)) {
		case "vagrant", "ruby", "ssh", "qemu-system-x86", "dnsmasq", "labctl":
			found = append(found, "process "+strings.TrimSpace(string(name)))
		}
	}
	return found
}
