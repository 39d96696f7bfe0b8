package mounts_test

import (
	"fmt"
	"testing"

	"github.com/native-routing/labctl/agent/mounts"
)

func TestParse(t *testing.T) {
	const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,relatime shared:7 - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw shared:9 master:1 - tmpfs tmpfs rw,mode=755
40 27 8:1 /x /mnt/a\040b\134c rw - ext4 /dev/sda1 rw
50 23 0:22 / /sys rw,relatime - sysfs none rw
short line
`
	want := []mounts.Point{{22, 27, "/", "/proc", "proc", "proc"}, {23, 27, "/", "/sys", "sysfs", "sysfs"},
		{31, 23, "/", "/sys/fs/cgroup", "tmpfs", "tmpfs"}, {40, 27, "/x", `/mnt/a b\c`, "ext4", "/dev/sda1"},
		{50, 23, "/", "/sys", "sysfs", "none"}}
	got := mounts.Parse(text)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if top, ok := mounts.Top(got, "/sys"); !ok || top.ID != 50 {
		t.Errorf("the topmost /sys is %v", top)
	}
	if top, ok := mounts.Top(got, "/no"); ok {
		t.Errorf("nothing is on /no, got %v", top)
	}
}
