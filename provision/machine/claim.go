package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// Errors to match with errors.Is.
var (
	// ErrForeign is a machine that is another lab's or another node's.
	ErrForeign = errors.New("the machine is taken")
	// ErrUnfit is a machine that cannot be a node.
	ErrUnfit = errors.New("the machine cannot be a node")
)

// mark says whose the machine is.
func mark(lab, node string) string { return "lab=" + lab + "\nnode=" + node + "\n" }

// owner is who the machine's mark names; false where there is none, or one that
// says nothing.
func (s seen) owner() (lab, node string, ok bool) {
	f, ok := s.Files[markFile]
	if !ok {
		return "", "", false
	}
	for line := range strings.Lines(f.Content) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "lab":
			lab = value
		case "node":
			node = value
		}
	}
	return lab, node, lab != "" && node != ""
}

// foreign is an error where the machine is somebody else's.
func (s seen) foreign(lab, node string) error {
	ownerLab, ownerNode, ok := s.owner()
	if _, mark := s.Files[markFile]; mark && !ok {
		return fmt.Errorf("%w: its mark %s was cut short (rm -r %s on it)", ErrForeign, markFile, dir)
	}
	if !ok || ownerLab == lab && ownerNode == node {
		return nil
	}
	return fmt.Errorf("%w: it is node %s of lab %s (labctl down --lab %s from where that was brought up, or rm -r %s on it)",
		ErrForeign, ownerNode, ownerLab, ownerLab, dir)
}

// fit refuses what cannot be a node.
func (s seen) fit() error {
	switch {
	case s.System != "Linux":
		return fmt.Errorf("%w: it runs %s, not Linux", ErrUnfit, s.System)
	case !s.Root:
		return fmt.Errorf("%w: its commands are not root's (let the user use sudo without a password)", ErrUnfit)
	case !s.Commands["tar"] || !s.Commands["base64"]:
		return fmt.Errorf("%w: there is no tar or no base64 (install tar and coreutils)", ErrUnfit)
	case s.Account.Name == "":
		return fmt.Errorf("%w: it does not know the user who logs in", ErrUnfit)
	}
	return nil
}

// found is what the machine was before it became a node.
type found struct {
	Hostname string            `json:"hostname"`
	Named    *string           `json:"hostnameFile,omitempty"` // nil where there was none
	Links    []foundLink       `json:"links"`
	Sysctls  map[string]string `json:"sysctls"`
}

type foundLink struct {
	Name      string         `json:"name"`
	Kind      string         `json:"kind,omitempty"` // empty: hardware
	Hardware  string         `json:"hardware"`
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up"`
	Addresses []netip.Prefix `json:"addresses"`
	Routes    []string       `json:"routes,omitempty"` // but the kernel's own; as ip takes them
}

func (s seen) found() found {
	f := found{Hostname: s.Hostname, Sysctls: s.Sysctls}
	if named, ok := s.Files[hostnameFile]; ok {
		f.Named = &named.Content
	}
	for _, l := range s.Links {
		was := foundLink{Name: l.Name, Kind: l.Info.Kind, Hardware: l.hardware(), MTU: l.MTU, Up: l.up(), Addresses: l.ipv4()}
		for _, r := range s.Routes {
			if r.made() && len(r.Hops) == 1 && r.by(l.Name) {
				was.Routes = append(was.Routes, r.line())
			}
		}
		f.Links = append(f.Links, was)
	}
	return f
}

// planClaim marks the machine, after it has written down what it was. Directories
// that a boot takes away are made again.
func planClaim(w want, s seen) (todo, error) {
	var t todo
	if _, _, ours := s.owner(); !ours {
		text, err := json.MarshalIndent(s.found(), "", "  ")
		if err != nil {
			return t, err
		}
		t.do("run", "mkdir", "-p", dir)
		t.put(s, foundFile, string(text)+"\n", plainMode, rootOwner)
		t.do("claim", markFile, encode(mark(w.lab, w.name)))
		t.changed(provision.Created, w.name, "node", strings.TrimSpace(s.OS+" "+s.goArch()))
	}
	for _, place := range []string{runDir, s.pins()} {
		if !s.Places[place] {
			t.do("run", "mkdir", "-p", place)
		}
	}
	return t, nil
}

// pins is the node's directory in the machine's BPF file system.
func (s seen) pins() string {
	root := s.BPF
	if root == "" {
		root = "/sys/fs/bpf"
	}
	return path.Join(root, pinsDir)
}
