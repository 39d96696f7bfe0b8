package vagrant

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/provision"
)

var sample = cures{lab: "study", provider: Libvirt, box: "bento/ubuntu-24.04", boxVersion: "202502.21.0", ranges: "192.168.10.0/24 192.168.20.0/24"}

// TestKnowsWhatVagrantSays takes the texts from the locale files of the Vagrant
// and the vagrant-libvirt that are here.
func TestKnowsWhatVagrantSays(t *testing.T) {
	ruby := needs(t, "ruby")
	for name, class := range saidIn(t, ruby, map[string]error{
		"vagrant.errors.machine_action_locked":                     ErrLocked,
		"vagrant.errors.machine_locked":                            ErrLocked,
		"vagrant.errors.environment_locked":                        ErrLocked,
		"vagrant.errors.virtualbox_invalid_host_subnet":            ErrHostOnly,
		"vagrant.errors.virtualbox_not_detected":                   ErrVirtualBox,
		"vagrant.errors.vboxmanage_not_found_error":                ErrVirtualBox,
		"vagrant.errors.virtualbox_kernel_module_not_loaded":       ErrVirtualBox,
		"vagrant.errors.virtualbox_install_incomplete":             ErrVirtualBox,
		"vagrant.errors.virtualbox_version_empty":                  ErrVirtualBox,
		"vagrant.errors.virtualbox_user_mismatch":                  provision.ErrPermission,
		"vagrant.errors.virtualbox_invalid_version":                ErrVersion,
		"vagrant.errors.hyperv_virtualbox_error":                   ErrVirtualization,
		"vagrant.errors.provider_not_found":                        ErrPlugin,
		"vagrant.errors.box_add_short_not_found":                   ErrBox,
		"vagrant.errors.box_add_no_matching_provider":              ErrBox,
		"vagrant.errors.box_add_no_matching_version":               ErrBox,
		"vagrant.errors.box_provider_doesnt_match":                 ErrBox,
		"vagrant.errors.box_metadata_download_error":               ErrBox,
		"vagrant.errors.box_not_found":                             ErrBox,
		"vagrant.errors.box_not_found_with_provider":               ErrBox,
		"vagrant.errors.box_not_found_with_provider_and_version":   ErrBox,
		"vagrant.errors.downloader_error":                          ErrBox,
		"vagrant.errors.downloader_interrupted":                    ErrBox,
		"vagrant.errors.downloader_checksum_error":                 ErrBox,
		"vagrant.actions.vm.forward_ports.collision_error":         ErrPort,
		"vagrant.actions.vm.forward_ports.auto_empty":              ErrPort,
		"vagrant.actions.vm.host_only_network.collides":            ErrNetwork,
		"vagrant.errors.boot_timeout":                              ErrBootTimeout,
		"vagrant.errors.ssh_connection_timeout":                    ErrBootTimeout,
		"vagrant.errors.boot_bad_state":                            ErrState,
		"vagrant.errors.vm_inaccessible":                           ErrState,
		"vagrant.errors.virtualbox_name_exists":                    ErrState,
		"vagrant.errors.machine_state_invalid":                     ErrState,
		"vagrant.errors.ssh_not_ready":                             ErrState,
		"vagrant.errors.config_invalid":                            ErrVagrantfile,
		"vagrant.errors.vagrantfile_load_error":                    ErrVagrantfile,
		"vagrant.errors.vagrantfile_syntax_error":                  ErrVagrantfile,
		"vagrant_libvirt.errors.fog_libvirt_connection_error":      ErrLibvirt,
		"vagrant_libvirt.errors.network_name_and_address_mismatch": ErrNetwork,
		"vagrant_libvirt.errors.domain_name_exists":                ErrState,
		"vagrant_libvirt.errors.domain_volume_exists":              ErrState,
		"vagrant_libvirt.errors.no_domain_volume":                  ErrState,
		"vagrant_libvirt.errors.no_ip_address_error":               ErrBootTimeout,
	}) {
		text, want, _ := strings.Cut(name, "\x00")
		fault := sample.told("router", text, "/log")
		if !errors.Is(fault, class) {
			t.Errorf("%s: %v, want %v; it says\n%s", want, fault, class, text)
		}
		if fault.Cure == "" && class != ErrVagrantfile {
			t.Errorf("%s: no cure", want)
		}
	}
}

// saidIn replaces the keys by the texts in the locale files, each followed by
// its key, with something in place of their parameters.
func saidIn(t *testing.T, ruby string, keys map[string]error) map[string]error {
	t.Helper()
	out, err := exec.Command(ruby, "-ryaml", "-rjson", "-e", `
		all = {}
		put = lambda { |v, at| v.is_a?(Hash) ? v.each { |k, x| put.(x, at + [k]) } : all[at.join('.')] = v.to_s }
		[['vagrant', 'templates/locales/en.yml'], ['vagrant-libvirt', 'locales/en.yml']].each do |gem, file|
			put.(YAML.load_file(File.join(Gem::Specification.find_by_name(gem).gem_dir, file))['en'], [])
		end
		puts JSON.generate(all)`).Output()
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]string
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	said := map[string]error{}
	for key, class := range keys {
		text, ok := all[key]
		if !ok {
			t.Errorf("Vagrant has no text %s", key)
			continue
		}
		for _, p := range []struct{ name, value string }{{"%{provider}", "libvirt"}, {"%{host_port}", "60000"}} {
			text = strings.ReplaceAll(text, p.name, p.value)
		}
		said[text+"\x00"+key] = class
	}
	return said
}

// TestKnowsWhatProvidersSay has what libvirt, QEMU, VirtualBox and the system say.
func TestKnowsWhatProvidersSay(t *testing.T) {
	for text, want := range map[string]string{
		"Error while connecting to Libvirt: Error making a connection to libvirt URI qemu:///system:\nCall to virConnectOpen failed: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory": "router: libvirt does not answer (sudo systemctl start libvirtd; all that vagrant said is in /log)",
		"Call to virConnectOpen failed: Failed to connect socket to '/var/run/libvirt/libvirt-sock': Permission denied":                                                                                                      "router: libvirt does not answer (sudo usermod -aG libvirt $USER, then log in again; all that vagrant said is in /log)",
		"Stderr: VBoxManage: error: Code E_ACCESSDENIED (0x80070005) - Access denied (extended info not available)\nVBoxManage: error: Context: \"hostonlyif ipconfig\" E_ACCESSDENIED":                                      "router: VirtualBox refuses the addresses of host-only networks (sudo mkdir -p /etc/vbox && echo '* 192.168.10.0/24 192.168.20.0/24' | sudo tee -a /etc/vbox/networks.conf; all that vagrant said is in /log)",
		"Stderr: VBoxManage: error: VT-x is not available (VERR_VMX_NO_VMX)":                                                                                                                                                 "router: this machine cannot run VMs so (switch virtualization (VT-x, AMD-V) on in the firmware's setup; all that vagrant said is in /log)",
		"unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not support virt type 'kvm'":                                                                                                                 "router: this machine cannot run VMs so (sudo modprobe kvm_intel or kvm_amd, and look whether /dev/kvm is there; all that vagrant said is in /log)",
		"internal error: qemu unexpectedly closed the monitor: cannot set up guest memory 'pc.ram': Cannot allocate memory":                                                                                                  "router: there is too little memory (halt other VMs, or give the nodes less: resources.memoryMiB in the topology; all that vagrant said is in /log)",
		"Error while uploading image to storage pool: cannot write to stream: No space left on device":                                                                                                                       "router: there is too little room on the disk (make room: labctl down of labs that are not needed, vagrant box prune; all that vagrant said is in /log)",
		"The specified wait_for timeout (2 seconds) was exceeded":                                                                                                                                                            "router: it did not boot in time (labctl up tries again; on a machine that is busy or has no KVM fewer nodes or CPUs help; all that vagrant said is in /log)",
		"internal error: Network is already in use by interface virbr3":                                                                                                                                                      "router: the network of a lab collides with another one (take down what else uses these addresses: virsh net-list --all, ip address; all that vagrant said is in /log)",
		"Something\nnew happened, that nobody knows.\n\nRead the manual.":                                                                                                                                                    "router: vagrant failed: Something new happened, that nobody knows (all that vagrant said is in /log)",
		"Call to virDomainCreateWithFlags failed: Requested operation is not valid: network 'x' is not active":                                                                                                               "router: vagrant failed: Call to virDomainCreateWithFlags failed: Requested operation is not valid: network 'x' is not active (all that vagrant said is in /log)",
	} {
		if diff := cmp.Diff(want, sample.told("router", text, "/log").Error()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	if f := sample.told("", "Failed to connect socket to '/var/run/libvirt/libvirt-sock': Call to virConnectOpen failed: Permission denied", ""); !errors.Is(f, provision.ErrPermission) || !errors.Is(f, ErrLibvirt) {
		t.Errorf("a missing right is %v", f)
	}
	if f := sample.told("", "The box 'bento/ubuntu-24.04' could not be found or\ncould not be accessed in the remote catalog.", ""); !strings.Contains(f.Error(),
		"vagrant box add bento/ubuntu-24.04 --box-version 202502.21.0 --provider libvirt") {
		t.Error(f)
	}
}

func TestEachMachineGetsItsOwnFault(t *testing.T) {
	f := &failure{text: "An error occurred while executing multiple actions in parallel.\nAny errors that occurred are shown below.\n\n" +
		"An error occurred while executing the action on the 'k8s-ctr'\nmachine. Please handle this error then try again:\n\nfirst: one\n\nmore of it\n\n" +
		"An unexpected error occurred when executing the action on the\n'router' machine. Please report this as a bug:\n\nsecond\n"}
	want := map[string]string{"k8s-ctr": "first: one\n\nmore of it", "router": "second"}
	if diff := cmp.Diff(want, f.perMachine()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f = &failure{text: "x", begun: []string{"a", "b"}, ended: []string{"a"}}
	if diff := cmp.Diff(map[string]string{"b": "x"}, f.perMachine()); diff != "" {
		t.Errorf("in sequence (-want +got):\n%s", diff)
	}
	if got := fmt.Sprint((&failure{text: "x"}).perMachine()); got != "map[]" {
		t.Errorf("before any machine: %s", got)
	}
}
