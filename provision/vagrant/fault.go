package vagrant

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// Errors to match with errors.Is: what kept Vagrant from doing its work.
var (
	ErrNoVagrant      = errors.New("vagrant is not here")
	ErrVersion        = errors.New("a version does not do")
	ErrPlugin         = errors.New("the plugin vagrant-libvirt is not here")
	ErrVirtualBox     = errors.New("VirtualBox does not work")
	ErrLibvirt        = errors.New("libvirt does not answer")
	ErrVirtualization = errors.New("this machine cannot run VMs so")
	ErrBox            = errors.New("the box cannot be had")
	ErrHostOnly       = errors.New("VirtualBox refuses the addresses of host-only networks")
	ErrNetwork        = errors.New("the network of a lab collides with another one")
	ErrPort           = errors.New("a port is taken")
	ErrLocked         = errors.New("another vagrant works on it")
	ErrBootTimeout    = errors.New("it did not boot in time")
	ErrState          = errors.New("the machine is in an odd state")
	ErrOutgrown       = errors.New("the topology asks for more than its VM has")
	ErrMemory         = errors.New("there is too little memory")
	ErrDisk           = errors.New("there is too little room on the disk")
	ErrVagrantfile    = errors.New("vagrant does not take the Vagrantfile")
	ErrVagrant        = errors.New("vagrant failed")
)

// Fault is why Vagrant failed, in plain words. It matches its class.
type Fault struct {
	// Node is the machine that it is about; empty where it is about all.
	Node  string
	Class error
	// Said is the heart of what Vagrant itself says.
	Said string
	// Cure is what mends it; empty where nobody knows.
	Cure string
	// Log holds all that Vagrant said; empty where it did not run.
	Log string
}

func (f *Fault) Error() string {
	text := f.Class.Error()
	if f.Node != "" {
		text = f.Node + ": " + text
	}
	if f.Said != "" {
		text += ": " + f.Said
	}
	cures := slices.DeleteFunc([]string{f.Cure, logged(f.Log)}, func(s string) bool { return s == "" })
	if len(cures) > 0 {
		text += " (" + strings.Join(cures, "; ") + ")"
	}
	return text
}

func logged(log string) string {
	if log == "" {
		return ""
	}
	return "all that vagrant said is in " + log
}

// Unwrap returns the class.
func (f *Fault) Unwrap() error { return f.Class }

// failure is a vagrant that ended with an error, as it printed it.
type failure struct {
	command      string
	exit         error
	kind, text   string
	log          string
	begun, ended []string
}

func (f *failure) Error() string {
	if f.text == "" {
		return fmt.Sprintf("vagrant %s: %v (%s)", f.command, f.exit, logged(f.log))
	}
	return fmt.Sprintf("vagrant %s: %s (%s)", f.command, gist(f.text), logged(f.log))
}

// Unwrap makes it an ErrVagrant until it is told apart.
func (f *failure) Unwrap() error { return ErrVagrant }

// section is where the error of each machine begins when several were worked
// on at once (batch_vagrant_error and batch_unexpected_error in Vagrant's locale).
var section = regexp.MustCompile(`An (?:unexpected )?error occurred (?:while|when) executing the action on the\s+'([^']*)'\s+machine\.[^:]*?(?:try again|as a bug):\s+`)

// sections splits the failure by the machines that it names.
func (f *failure) sections() map[string]string {
	texts := map[string]string{}
	marks := section.FindAllStringSubmatchIndex(f.text, -1)
	for i, m := range marks {
		end := len(f.text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		texts[f.text[m[2]:m[3]]] = strings.TrimSpace(f.text[m[1]:end])
	}
	return texts
}

// perMachine is sections; where the failure names no machine, all of it goes to
// those that were being worked on. Machines that were not come to are not in it.
func (f *failure) perMachine() map[string]string {
	texts := f.sections()
	if len(texts) > 0 {
		return texts
	}
	for _, name := range f.begun {
		if !slices.Contains(f.ended, name) {
			texts[name] = f.text
		}
	}
	return texts
}

// gist is what says most: the first paragraph, with the next one where that
// only announces it, on one line.
func gist(text string) string {
	const most = 240
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n\n")
	if strings.HasSuffix(first, ":") {
		next, _, _ := strings.Cut(strings.TrimSpace(rest), "\n\n")
		first += " " + next
	}
	first = strings.Join(strings.Fields(first), " ")
	if len(first) > most {
		first = strings.ToValidUTF8(first[:most], "") + "…"
	}
	return strings.TrimSuffix(first, ".")
}

// told tells the class of what Vagrant said of one machine.
func (c cures) told(node, text, log string) *Fault {
	flat := strings.Join(strings.Fields(text), " ")
	for _, k := range known {
		m := k.says.FindStringSubmatch(flat)
		if m == nil {
			continue
		}
		f := &Fault{Node: node, Class: k.class, Log: log}
		if k.cure != nil {
			f.Cure = k.cure(c, m)
		}
		if k.quote {
			f.Said = m[len(m)-1]
		}
		return f
	}
	return &Fault{Node: node, Class: ErrVagrant, Said: gist(text), Log: log}
}

// permission makes a fault that also is one of missing rights.
type permission struct{ error }

func (p permission) Is(target error) bool { return target == provision.ErrPermission }

func (p permission) Unwrap() error { return p.error }
