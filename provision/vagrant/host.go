package vagrant

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// leastRoom is less than one box and the disks of a few machines take, in bytes.
const leastRoom = 5 << 30

// networksFile is where VirtualBox reads which host-only ranges it may use, on
// Linux, macOS before its version 7, and Solaris.
const networksFile = "/etc/vbox/networks.conf"

// lookAtRoom compares memory and disk with what the topology asks for.
func (p *Provider) lookAtRoom(t *topo.Topology, provider string) []provision.Finding {
	var findings []provision.Finding
	if memory, err := mem.VirtualMemory(); err == nil {
		up := len(p.options.paths(t.Metadata.Name).made(provider)) > 0
		findings = append(findings, judgeMemory(t, memory.Total, memory.Available, up))
	}
	dir := storage(provider)
	if usage, err := disk.Usage(dir); err == nil {
		f := fine("disk", fmt.Sprintf("%d GiB free at %s", usage.Free>>30, dir))
		if usage.Free < leastRoom {
			f.Severity, f.Cure = provision.Warning, "make room: a box and the disks of a few VMs take 5 GiB and more"
		}
		findings = append(findings, f)
	}
	return findings
}

// judgeMemory takes bytes. What is available counts only where none of the
// lab's machines has its share already.
func judgeMemory(t *topo.Topology, total, available uint64, up bool) provision.Finding {
	var wanted uint64
	for _, n := range t.Nodes.All() {
		wanted += uint64(memoryOf(n)) << 20
	}
	f := fine("memory", fmt.Sprintf("%d MiB for %d VMs, of %d MiB", wanted>>20, len(t.Nodes), total>>20))
	cure := "halt other programs, or give the nodes less: resources.memoryMiB in the topology"
	switch {
	case wanted > total:
		return missing("memory", ErrMemory, f.Detail, "give the nodes less: resources.memoryMiB in the topology")
	case !up && wanted > available:
		f.Severity, f.Cure = provision.Warning, cure
		f.Detail += fmt.Sprintf(", of which %d MiB are free", available>>20)
	}
	return f
}

// storage is where the provider puts disks, or the next directory above that is there.
func storage(provider string) string {
	dir, err := os.UserHomeDir()
	if err != nil {
		dir = "."
	}
	if provider == Libvirt {
		dir = "/var/lib/libvirt/images"
	}
	for !exists(dir) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// lookAtRanges holds the topology's networks against those that VirtualBox may
// use for host-only networks.
func lookAtRanges(t *topo.Topology) []provision.Finding {
	if runtime.GOOS != "linux" {
		return nil // VirtualBox restricts nothing on Windows, nor on macOS from 7 on
	}
	text, err := os.ReadFile(networksFile)
	if err != nil && !os.IsNotExist(err) {
		return nil
	}
	refused := outside(t, allowedRanges(string(text), err == nil))
	if len(refused) == 0 {
		return []provision.Finding{fine("host-only networks", "VirtualBox may use the lab's ranges")}
	}
	return []provision.Finding{missing("host-only networks", ErrHostOnly,
		"VirtualBox may not use "+strings.Join(refused, ", "), networksConf(networksOf(t)))}
}

// allowedRanges reads networks.conf: lines that begin with * and name ranges.
// Without the file it is what VirtualBox allows by itself
// (https://www.virtualbox.org/manual/ch06.html#network_hostonly).
func allowedRanges(text string, there bool) []netip.Prefix {
	if !there {
		return []netip.Prefix{netip.MustParsePrefix("192.168.56.0/21")}
	}
	var ranges []netip.Prefix
	for line := range strings.Lines(text) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "*")
		if !ok {
			continue
		}
		for _, field := range strings.Fields(list) {
			if prefix, err := netip.ParsePrefix(field); err == nil {
				ranges = append(ranges, prefix.Masked())
			}
		}
	}
	return ranges
}

// outside are the networks of t that none of the ranges holds.
func outside(t *topo.Topology, allowed []netip.Prefix) []string {
	var refused []string
	for _, n := range t.Networks.All() {
		if !slices.ContainsFunc(allowed, func(a netip.Prefix) bool {
			return a.Contains(n.CIDR.Addr()) && a.Bits() <= n.CIDR.Bits()
		}) {
			refused = append(refused, n.CIDR.String())
		}
	}
	return refused
}

// hasKVM says whether this machine runs VMs on its processor, and not in software.
func hasKVM() bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return os.IsPermission(err) // libvirt's own user may
	}
	f.Close()
	return true
}

// lookAtKVM warns where machines will be slow.
func lookAtKVM() provision.Finding {
	if hasKVM() {
		return fine("KVM", "/dev/kvm")
	}
	info, _ := os.ReadFile("/proc/cpuinfo") // it only chooses the cure
	f := provision.Finding{Severity: provision.Warning, Subject: "KVM",
		Detail: "no /dev/kvm: VMs are emulated, and boot in minutes where seconds would do"}
	switch {
	case strings.Contains(string(info), " vmx"):
		f.Cure = "sudo modprobe kvm_intel"
	case strings.Contains(string(info), " svm"):
		f.Cure = "sudo modprobe kvm_amd"
	default:
		f.Cure = "switch virtualization (VT-x, AMD-V) on in the firmware's setup, or nested virtualization where this is a VM"
	}
	return f
}

// isPermission includes what a socket says.
func isPermission(err error) bool {
	return os.IsPermission(err) || strings.Contains(err.Error(), fs.ErrPermission.Error())
}
