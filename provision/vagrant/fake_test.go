package vagrant

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be vagrant, virsh and VBoxManage, by the name
// that it is called by.
func TestMain(m *testing.M) {
	world := fakeWorld{os.Getenv("LABCTL_FAKE_WORLD")}
	switch filepath.Base(os.Args[0]) {
	case "vagrant":
		os.Exit(world.vagrant(os.Args[1:]))
	case "virsh":
		os.Exit(world.virsh(os.Args[1:]))
	case "VBoxManage":
		os.Exit(world.vboxManage(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// fakeWorld is a directory in which the fake programs keep what there is:
//
//	calls                what was called, a line each
//	faults.json          what goes wrong
//	ports.json           where the nodes' SSH is, by node
//	domains/NAME         libvirt's domains; the content is their number of NICs
//	networks/NAME, volumes/NAME, vms/NAME
//	release              lets a vagrant that hangs go on
//	no-libvirtd          has virsh find no libvirt
type fakeWorld struct{ dir string }

// fakeFault makes one call of vagrant fail.
type fakeFault struct {
	Command string // up, halt, destroy, status, ssh-config
	Node    string // the machine that fails; empty: all of it
	Type    string // the class of error-exit
	Text    string
	// Hang waits there until it is interrupted, or release is there.
	Hang bool
	// Die ends at once without a word, as a killed vagrant, leaving the machine half made.
	Die bool
	// Deaf takes no notice of an interrupt.
	Deaf bool
	// Raise ends with Text as an exception that nobody caught.
	Raise bool
	// Times is how often; once where it is 0.
	Times int
}

func (w fakeWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w fakeWorld) fault(command, node string) *fakeFault {
	var all []fakeFault
	data, _ := os.ReadFile(w.path("faults.json"))
	_ = json.Unmarshal(data, &all)
	for i := range all {
		if all[i].Command == command && all[i].Node == node && all[i].Times >= 0 {
			f := all[i]
			if all[i].Times--; all[i].Times <= 0 {
				all[i].Times = -1
			}
			data, _ := json.Marshal(all)
			_ = os.WriteFile(w.path("faults.json"), data, 0o644)
			return &f
		}
	}
	return nil
}

func (w fakeWorld) put(kind, name, content string) {
	_ = os.MkdirAll(w.path(kind), 0o755)
	_ = os.WriteFile(w.path(kind, name), []byte(content), 0o644)
}

func (w fakeWorld) list(kind string) []string {
	entries, _ := os.ReadDir(w.path(kind))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (w fakeWorld) called(args ...string) {
	f, err := os.OpenFile(w.path("calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintln(f, strings.Join(args, " "))
		f.Close()
	}
}

// fakeRun is one vagrant.
type fakeRun struct {
	fakeWorld
	cwd, data, provider string
	interrupted         chan os.Signal
}

func (w fakeWorld) vagrant(args []string) int {
	if args[0] == "--version" {
		fmt.Println("Vagrant 2.3.4")
		return 0
	}
	cwd := os.Getenv("VAGRANT_CWD")
	r := fakeRun{w, cwd, cmp.Or(os.Getenv("VAGRANT_DOTFILE_PATH"), filepath.Join(cwd, ".vagrant")), os.Getenv("VAGRANT_DEFAULT_PROVIDER"), make(chan os.Signal, 1)}
	w.called(append([]string{"vagrant"}, args...)...)
	signal.Notify(r.interrupted, os.Interrupt)
	if args[0] == "plugin" {
		r.say("vagrant-libvirt", "plugin-name", "vagrant-libvirt")
		r.say("vagrant-libvirt", "plugin-version", "0.11.2, system")
		return 0
	}
	var names []string
	for _, a := range args[1:] {
		if !strings.HasPrefix(a, "-") {
			names = append(names, a)
		}
	}
	if len(names) == 0 {
		names = r.defined()
	}
	if f := w.fault(args[0], ""); f != nil {
		return r.fail("", f)
	}
	for _, n := range names {
		if !slices.Contains(r.defined(), n) {
			return r.fail("", &fakeFault{Type: "Vagrant::Errors::MachineNotFound", Text: "The machine with the name '" + n + "' was not found configured for\nthis Vagrant environment."})
		}
	}
	if args[0] == "status" || args[0] == "ssh-config" {
		for _, n := range names {
			if exists(r.machine(n, "index_uuid")) { // a vagrant up may be at that entry of the index
				return r.fail("", &fakeFault{Type: "Vagrant::Errors::MachineLocked", Text: "Vagrant can't use the requested machine because it is locked!"})
			}
		}
	}
	switch args[0] {
	case "status":
		for _, n := range names {
			r.say(n, "state", r.state(n))
		}
	case "ssh-config":
		return r.sshConfig(names)
	case "up":
		return r.up(names)
	case "halt", "destroy":
		for _, n := range names {
			if code := r.down(args[0], n); code != 0 {
				return code
			}
		}
	}
	return 0
}

func (r fakeRun) say(target, kind string, data ...string) {
	for i, d := range data {
		data[i] = strings.NewReplacer(",", "%!(VAGRANT_COMMA)", "\n", `\n`).Replace(d)
	}
	fmt.Printf("%d,%s,%s,%s\n", time.Now().Unix(), target, kind, strings.Join(data, ","))
}

func (r fakeRun) defined() []string {
	text, _ := os.ReadFile(filepath.Join(r.cwd, "Vagrantfile"))
	var names []string
	for _, m := range regexp.MustCompile(`config\.vm\.define '([^']+)'`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	return names
}

func (r fakeRun) machine(node, file string) string {
	return filepath.Join(r.data, "machines", node, r.provider, file)
}

func (r fakeRun) state(node string) string {
	file := r.machine(node, "fake-state")
	if r.provider == Libvirt {
		file = r.path("ids", "id-"+r.object(node)) // virsh changes it too
	}
	state, err := os.ReadFile(file)
	if _, idErr := os.Stat(r.machine(node, "id")); err != nil || idErr != nil {
		return absent
	}
	return string(state)
}

func (r fakeRun) set(node, state string) {
	id := "id-" + r.object(node)
	if state == absent {
		_ = os.RemoveAll(filepath.Dir(r.machine(node, "id")))
		_ = os.Remove(r.path("ids", id))
		return
	}
	_ = os.MkdirAll(filepath.Dir(r.machine(node, "id")), 0o755)
	_ = os.WriteFile(r.machine(node, "id"), []byte(id), 0o644)
	_ = os.WriteFile(r.machine(node, "index_uuid"), []byte("5be45e3a5c1b4b4a8f6d0f6f1d2c3b4a"), 0o644)
	if r.provider == Libvirt {
		r.put("ids", id, state)
	}
	_ = os.WriteFile(r.machine(node, "fake-state"), []byte(state), 0o644)
}

// object is the domain's or VirtualBox machine's name.
func (r fakeRun) object(node string) string {
	return objectName(filepath.Base(filepath.Dir(r.cwd)), node)
}

func (r fakeRun) up(names []string) int {
	var failed []fakeFault
	for _, n := range names {
		r.say(n, "action", "up", "start")
		f := r.fault("up", n)
		if f != nil && !f.Hang && !f.Die {
			if r.provider == Libvirt {
				f.Node = n
				failed = append(failed, *f)
				r.say(n, "ui", "error", "==> "+n+": An error occurred. The error will be shown after all tasks complete.")
				continue
			}
			return r.fail(n, f)
		}
		if r.state(n) == absent {
			r.say(n, "ui", "info", "==> "+n+": Importing base box 'bento/ubuntu-24.04'...")
			if r.provider == Libvirt {
				if _, err := os.Stat(r.path("domains", r.object(n))); err == nil {
					return r.fail(n, &fakeFault{Type: "VagrantPlugins::ProviderLibvirt::Errors::DomainNameExists",
						Text: "Name `" + r.object(n) + "` of domain about to create is already taken. Please try to run\n`vagrant up` command again."})
				}
				r.put("domains", r.object(n), "9")
				r.put("volumes", r.object(n)+".img", "")
				r.put("networks", mark(filepath.Base(filepath.Dir(r.cwd)))+"net", "")
			} else {
				r.put("vms", r.object(n), "")
			}
		}
		if f != nil && (f.Hang || f.Die) {
			return r.fail(n, f)
		}
		r.say(n, "ui", "info", "==> "+n+": Waiting for machine to boot. This may take a few minutes...")
		r.set(n, "running")
		r.say(n, "ui", "info", "==> "+n+": Machine booted and ready!")
		if f := r.fault("finish", n); f != nil {
			return r.fail(n, f)
		}
		r.say(n, "action", "up", "end")
	}
	if len(failed) == 0 {
		return 0
	}
	text := "An error occurred while executing multiple actions in parallel.\nAny errors that occurred are shown below.\n"
	for _, f := range failed {
		text += "\nAn error occurred while executing the action on the '" + f.Node + "'\nmachine. Please handle this error then try again:\n\n" + f.Text + "\n"
	}
	return r.fail("", &fakeFault{Type: "Vagrant::Errors::BatchMultiError", Text: text})
}

// fail ends as the fault says; what it leaves is what vagrant would leave.
func (r fakeRun) fail(node string, f *fakeFault) int {
	if f.Die {
		return 137
	}
	if f.Raise {
		const gem = "/usr/share/rubygems-integration/all/gems/vagrant-2.3.4/lib/vagrant/action/warden.rb"
		fmt.Fprintf(os.Stderr, "%s:48:in `block in call': %s (Fog::Errors::TimeoutError)\n", gem, f.Text)
		for range 72 {
			fmt.Fprintf(os.Stderr, "\tfrom %s:127:in `block in finalize_action'\n", gem)
		}
		return 1
	}
	if f.Hang {
		r.say(node, "ui", "info", "==> "+node+": Booting VM...")
		for !r.released() {
			select {
			case <-r.interrupted:
				if f.Deaf {
					continue
				}
				r.say("", "ui", "warn", "Waiting for cleanup before exiting...")
				r.down("destroy", node)
				r.called("cleaned", node)
				return 1
			case <-time.After(5 * time.Millisecond):
			}
		}
		r.set(node, "running")
		r.say(node, "action", "up", "end")
		return 0
	}
	r.say("", "ui", "error", f.Text)
	r.say("", "error-exit", f.Type, f.Text)
	return 1
}

func (r fakeRun) released() bool {
	_, err := os.Stat(r.path("release"))
	return err == nil
}

func (r fakeRun) down(command, node string) int {
	if f := r.fault(command, node); f != nil {
		return r.fail(node, f)
	}
	r.say(node, "action", command, "start")
	switch {
	case command == "destroy":
		r.set(node, absent)
		_ = os.Remove(r.path("domains", r.object(node)))
		_ = os.Remove(r.path("volumes", r.object(node)+".img"))
		_ = os.Remove(r.path("vms", r.object(node)))
	case r.state(node) != absent:
		r.set(node, map[string]string{VirtualBox: "poweroff", Libvirt: "shutoff"}[r.provider])
	}
	r.say(node, "action", command, "end")
	return 0
}

func (r fakeRun) sshConfig(names []string) int {
	var ports map[string]int
	data, _ := os.ReadFile(r.path("ports.json"))
	_ = json.Unmarshal(data, &ports)
	for _, n := range names {
		if r.state(n) != "running" {
			return r.fail("", &fakeFault{Type: "Vagrant::Errors::SSHNotReady", Text: "The provider for this Vagrant-managed machine is reporting that it\nis not yet ready for SSH."})
		}
		text := "Host " + n + "\n  HostName 127.0.0.1\n  User vagrant\n  Port " + strconv.Itoa(ports[n]) + "\n  IdentityFile \"/a b/key\"\n"
		r.say(n, "ssh-config", text)
		fmt.Println(text)
	}
	return 0
}

func (w fakeWorld) virsh(args []string) int {
	args = args[3:] // -q -c URI
	w.called(append([]string{"virsh"}, args...)...)
	if _, err := os.Stat(w.path("no-libvirtd")); err == nil {
		fmt.Fprintln(os.Stderr, "error: failed to connect to the hypervisor\nerror: Failed to connect socket to '/var/run/libvirt/libvirt-sock': No such file or directory")
		return 1
	}
	remove := func(kind, name string) int {
		if err := os.Remove(w.path(kind, name)); errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintf(os.Stderr, "error: failed to get %s '%s'\n", kind, name)
			return 1
		}
		return 0
	}
	switch args[0] {
	case "list":
		if args[2] == "--uuid" {
			fmt.Println(strings.Join(w.list("ids"), "\n"))
			return 0
		}
		fmt.Println(strings.Join(w.list("domains"), "\n"))
	case "domstate":
		state, _ := os.ReadFile(w.path("ids", args[1]))
		fmt.Println(map[string]string{"shutoff": "shut off"}[string(state)] + strings.TrimPrefix(string(state), "shutoff"))
	case "net-list":
		fmt.Println(strings.Join(w.list("networks"), "\n"))
	case "pool-list":
		fmt.Println("default")
	case "vol-list":
		for _, v := range w.list("volumes") {
			fmt.Printf(" %s   /pool/%s\n", v, v)
		}
	case "vol-path":
		fmt.Println("/pool/" + args[3])
	case "vol-dumpxml":
		backing, _ := os.ReadFile(w.path("volumes", args[3]))
		fmt.Printf("<volume><target><path>/pool/%s</path></target><backingStore><path>%s</path></backingStore></volume>\n", args[3], backing)
	case "domiflist":
		nics, _ := os.ReadFile(w.path("domains", args[1]))
		n, _ := strconv.Atoi(string(nics))
		for i := range n {
			fmt.Printf(" vnet%d   network   net   virtio   52:54:00:00:00:%02x\n", i, i)
		}
	case "destroy": // switches it off
		if _, err := os.Stat(w.path("ids", "id-"+args[1])); err == nil {
			w.put("ids", "id-"+args[1], "shutoff")
		}
	case "undefine":
		return remove("domains", args[1])
	case "net-undefine":
		return remove("networks", args[1])
	case "vol-delete":
		return remove("volumes", args[3])
	}
	return 0
}

func (w fakeWorld) vboxManage(args []string) int {
	switch args[0] {
	case "--version":
		fmt.Println("7.0.14r161095")
	case "list":
		for _, name := range w.list("vms") {
			fmt.Printf("%q {6d1c1a4e-0000-0000-0000-000000000000}\n", name)
		}
	case "unregistervm":
		_ = os.Remove(w.path("vms", args[1]))
	}
	return 0
}
