package vagrant

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/provision/machine"
)

func TestParseEvent(t *testing.T) {
	at := time.Unix(1795414260, 0).UTC()
	for line, want := range map[string]*event{
		"1795414260,k8s-ctr,metadata,provider,libvirt":              {at, "k8s-ctr", "metadata", []string{"provider", "libvirt"}},
		"1795414260,,ui,info,Bringing machine 'router' up...":       {at, "", "ui", []string{"info", "Bringing machine 'router' up..."}},
		`1795414260,,ui,warn,a%!(VAGRANT_COMMA) b\nc\rd`:            {at, "", "ui", []string{"warn", "a, b\nc\rd"}},
		"1795414260,router,action,up,end\r":                         {at, "router", "action", []string{"up", "end"}},
		"1795414260,router,state-human-short,not created,,":         {at, "router", "state-human-short", []string{"not created", "", ""}},
		"1795414260,router,empty":                                   {at, "router", "empty", nil},
		"":                                                          nil,
		"Host k8s-ctr":                                              nil,
		"yesterday,router,action,up,end":                            nil,
		"-1,router,action,up,end":                                   nil,
		"1795414260,router":                                         nil,
		"1795414260,router,":                                        nil,
		"99999999999999999999,router,action,up,end":                 nil,
		"==> vagrant: A new version of Vagrant is available, 2.4.9": nil,
	} {
		got, ok := parseEvent(line)
		if ok != (want != nil) {
			t.Errorf("%q: %v", line, ok)
			continue
		}
		if ok {
			if diff := cmp.Diff(*want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", line, diff)
			}
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, line := range []string{"1795414260,router,action,up,end", `1,,ui,info,a%!(VAGRANT_COMMA)\n`, "x", ",,,", "1,a,b"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		e, ok := parseEvent(line)
		if !ok {
			return
		}
		if e.Type == "" || e.Time.Unix() < 0 || strings.Contains(e.Target, ",") {
			t.Errorf("%q: %+v", line, e)
		}
		// What is asked of an event never panics.
		progress(e)
		e.said()
		e.done("up")
		e.data(99)
	})
}

func TestSaidIsWithoutTheMachinesName(t *testing.T) {
	e := event{Target: "router", Type: "ui", Data: []string{"info", "==> router: Two lines,\n    router: of router: text"}}
	if kind, text, ok := e.said(); kind != "info" || text != "Two lines,\nof router: text" || !ok {
		t.Errorf("%s %q %v", kind, text, ok)
	}
}

func TestProgress(t *testing.T) {
	for text, want := range map[string]string{
		"Box 'bento/ubuntu-24.04' could not be found. Attempting to find and install...": "looking for the box",
		"Progress: 42% (Rate: 3M/s, Estimated time remaining: 0:01:00)":                  "the box: 42%",
		"Importing base box 'bento/ubuntu-24.04'...":                                     "importing the box",
		"Uploading base box image as volume into Libvirt storage...":                     "copying the box into libvirt's storage",
		"Waiting for domain to get an IP address...":                                     "booting, waiting for its address",
		"Fixed port collision for 22 => 60000. Now on port 2200.":                        "port 60000 is taken, SSH is forwarded from 2200",
		"Machine booted and ready!":                                                      "booted",
		"SSH address: 192.168.121.7:22":                                                  "",
	} {
		if got := progress(event{Target: "router", Type: "ui", Data: []string{"info", "==> router: " + text}}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestParseSSHConfig(t *testing.T) {
	got := parseSSHConfig(`Host k8s-ctr
  HostName 127.0.0.1
  User vagrant
  Port 60000
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "C:/Users/A B/.vagrant/machines/k8s-ctr/virtualbox/private_key"
  IdentitiesOnly yes
  LogLevel FATAL

Host router
  HostName 192.168.121.7
  User root
  IdentityFile /home/a/.vagrant.d/insecure_private_keys/vagrant.key.ed25519
  IdentityFile /home/a/.vagrant.d/insecure_private_keys/vagrant.key.rsa

Host half
  Port 1
`)
	want := map[string]machine.Access{
		"k8s-ctr": {Host: "127.0.0.1", Port: 60000, User: "vagrant", KeyFile: "C:/Users/A B/.vagrant/machines/k8s-ctr/virtualbox/private_key"},
		"router":  {Host: "192.168.121.7", Port: 22, User: "root", KeyFile: "/home/a/.vagrant.d/insecure_private_keys/vagrant.key.rsa"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
