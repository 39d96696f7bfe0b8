package vagrant

import (
	"regexp"
	"strings"
)

// cures knows what the cures of faults name.
type cures struct {
	lab, provider   string
	box, boxVersion string
	// ranges are the lab's networks, as /etc/vbox/networks.conf has them.
	ranges string
}

const (
	cureNoVagrant  = "install it: https://developer.hashicorp.com/vagrant/install, or apt-get install vagrant"
	cureVirtualBox = "install it: https://www.virtualbox.org/wiki/Downloads; then VBoxManage --version answers"
	curePlugin     = "vagrant plugin install vagrant-libvirt, or apt-get install vagrant-libvirt"
	cureLibvirt    = "sudo systemctl start libvirtd"
	cureVirsh      = "apt-get install libvirt-clients"
	cureHung       = "sudo systemctl restart libvirtd"
	cureGroup      = "sudo usermod -aG libvirt $USER, then log in again"
)

func say(cure string) func(cures, []string) string {
	return func(cures, []string) string { return cure }
}

// known are the errors of Vagrant, of its providers and of what these run that
// labctl has words for, by the text that they have in Vagrant's and in
// vagrant-libvirt's locale files and in libvirt's and VirtualBox's own
// messages, on one line. The first that fits counts.
var known = []struct {
	says  *regexp.Regexp
	class error
	// quote shows the text's own last group.
	quote bool
	cure  func(c cures, match []string) string
}{
	{says: regexp.MustCompile(`another process is already executing an action on the machine|can't use the requested machine because it is locked|lock is being held by another instance of Vagrant`),
		class: ErrLocked, cure: say("wait until the other vagrant has ended, or end it")},

	{says: regexp.MustCompile(`host-only network is not within the allowed ranges|(?i)hostonlyif.*(?:E_ACCESSDENIED|access denied)`),
		class: ErrHostOnly, cure: func(c cures, _ []string) string { return networksConf(c.ranges) }},
	{says: regexp.MustCompile(`host network collides with a non-hostonly network|does not match with network name|(?i)network is already in use by interface (\S+)|bridge name '[^']*' already in use`),
		class: ErrNetwork, cure: say("take down what else uses these addresses: virsh net-list --all, ip address")},

	{says: regexp.MustCompile(`(?:Error while connecting to Libvirt|virConnectOpen failed).*(?:Permission denied|authentication (?:unavailable|failed|cancelled))`),
		class: permission{ErrLibvirt}, cure: say(cureGroup)},
	{says: regexp.MustCompile(`Error while connecting to Libvirt|virConnectOpen failed`),
		class: ErrLibvirt, cure: say(cureLibvirt)},
	{says: regexp.MustCompile(`provider 'libvirt' could not be found, but was requested`),
		class: ErrPlugin, cure: say(curePlugin)},

	{says: regexp.MustCompile(`version of VirtualBox installed that is not supported`),
		class: ErrVersion, cure: say("install a newer Vagrant, or a VirtualBox that this one knows")},
	{says: regexp.MustCompile(`kernel module is not loaded|installation is incomplete|Kernel driver not installed|VERR_VM_DRIVER_NOT_INSTALLED|vboxdrv`),
		class: ErrVirtualBox, cure: say("sudo /sbin/vboxconfig")},
	{says: regexp.MustCompile(`could not detect VirtualBox|"VBoxManage" command or one of its dependencies could not be found|calls to detect the version are returning empty|error running VBoxManage`),
		class: ErrVirtualBox, cure: say(cureVirtualBox)},
	{says: regexp.MustCompile(`VM was created with a user that doesn't match`),
		class: permission{ErrVirtualBox}, cure: say("run labctl as the user who made the lab")},

	{says: regexp.MustCompile(`VERR_VMX_NO_VMX|VERR_SVM_NO_SVM|VERR_VMX_MSR_ALL_VMX_DISABLED|VERR_SVM_DISABLED`),
		class: ErrVirtualization, cure: say("switch virtualization (VT-x, AMD-V) on in the firmware's setup")},
	{says: regexp.MustCompile(`VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE|Hyper-V and VirtualBox cannot be used together`),
		class: ErrVirtualization, cure: say("another hypervisor holds the processor: stop its VMs, or sudo modprobe -r kvm_intel kvm_amd; on Windows switch Hyper-V off")},
	{says: regexp.MustCompile(`does not support virt type 'kvm'|could not access KVM kernel module|KVM is not available`),
		class: ErrVirtualization, cure: say("sudo modprobe kvm_intel or kvm_amd, and look whether /dev/kvm is there")},

	{says: regexp.MustCompile(`(?i)no space left on device|VERR_DISK_FULL|ENOSPC|not enough (?:free )?(?:disk )?space`),
		class: ErrDisk, cure: say("make room: labctl down of labs that are not needed, vagrant box prune")},
	{says: regexp.MustCompile(`(?i)cannot allocate memory|cannot set up guest memory|VERR_NO_MEMORY|out of memory|not enough memory`),
		class: ErrMemory, cure: say("halt other VMs, or give the nodes less: resources.memoryMiB in the topology")},

	{says: regexp.MustCompile(`doesn't support the provider you requested|doesn't match the provider you specified`),
		class: ErrBox, cure: func(c cures, _ []string) string {
			return "the box " + c.box + " is not made for " + c.provider + ": name another in providers.vagrant.box, such as generic/ubuntu2204"
		}},
	{says: regexp.MustCompile(`has no available version that matches`),
		class: ErrBox, cure: func(c cures, _ []string) string {
			return "the box " + c.box + " has no version " + c.boxVersion + " for " + c.provider + ": name another in providers.vagrant.boxVersion"
		}},
	{says: regexp.MustCompile(`could not be found or could not be accessed in the remote catalog|error (?:occurred )?while downloading the (?:remote file|metadata)|box '[^']*'.* (?:could not be found|does not exist|isn't installed)|download was interrupted by an external signal|does not match the expected checksum`),
		class: ErrBox, cure: func(c cures, _ []string) string {
			return "with a network: " + c.addBox() + "; without: get the box's file elsewhere, then vagrant box add --name " + c.box + " FILE"
		}},

	{says: regexp.MustCompile(`forwarded port to (\d+) is already in use`),
		class: ErrPort, cure: func(_ cures, m []string) string {
			return "free port " + m[1] + ", or name another in the topology: resources.sshPort"
		}},
	{says: regexp.MustCompile(`auto-correction range are all also used`),
		class: ErrPort, cure: say("take other labs down: all of Vagrant's ports 2200 to 2250 are taken")},

	{says: regexp.MustCompile(`Timed out while waiting for the machine to boot|wait_for timeout|No IP address found|SSH connection (?:was refused|timed out)|timed out while attempting to connect via SSH`),
		class: ErrBootTimeout, cure: func(c cures, _ []string) string {
			return "labctl up tries again; on a machine that is busy or has no KVM fewer nodes or CPUs help"
		}},
	{says: regexp.MustCompile(`guest machine entered an invalid state.*is in the '([^']*)' state|has become "inaccessible|Domain is not (?:created|running)|[Dd]omain is already created|domain about to create is already taken|Volume for domain is (?:already created|missing)|VM with that name already exists|provider .* reported an invalid state|not yet ready for SSH`),
		class: ErrState, cure: func(c cures, _ []string) string {
			return "labctl up mends what it can; labctl down --lab " + c.lab + " and up make it anew"
		}},

	{says: regexp.MustCompile(`errors in the configuration of this machine. Please fix the following errors and try again: (.*)`),
		class: ErrVagrantfile, quote: true, cure: say("a newer Vagrant may take it")},
	{says: regexp.MustCompile(`(syntax error in the following Vagrantfile.*|error loading a Vagrantfile.*)`),
		class: ErrVagrantfile, quote: true},
}

// addBox is the command that fetches the lab's box.
func (c cures) addBox() string {
	line := "vagrant box add " + c.box
	if c.boxVersion != "" {
		line += " --box-version " + c.boxVersion
	}
	return line + " --provider " + c.provider
}

// networksConf is what makes VirtualBox take the ranges
// (https://www.virtualbox.org/manual/ch06.html#network_hostonly).
func networksConf(ranges string) string {
	return strings.Join([]string{"sudo mkdir -p /etc/vbox", "echo '* " + ranges + "' | sudo tee -a /etc/vbox/networks.conf"}, " && ")
}
