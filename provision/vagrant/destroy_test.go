package vagrant

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

func TestDestroyLeavesNothing(t *testing.T) {
	for _, provider := range []string{VirtualBox, Libvirt} {
		t.Run(provider, func(t *testing.T) {
			s := newStage(t, provider)
			s.put("volumes", "labctl-study-2_router.img", "/pool/bento-VAGRANTSLASH-ubuntu-24.04_vagrant_box_image_202502.21.0_box.img")
			s.wantUp(study(t))
			s.put("domains", "labctl-study_lost", "1")
			s.put("vms", "labctl-study_lost", "")
			s.put("networks", "labctl-study", "")
			s.put("domains", "labctl-study-2_router", "1")
			s.put("networks", "default", "")
			if _, err := s.Destroy(t.Context(), "study"); err != nil {
				t.Fatal(err)
			}
			if provider == Libvirt {
				if got := slices.Concat(s.list("domains"), s.list("networks"), s.list("volumes")); !slices.Equal(got, []string{"labctl-study-2_router", "default", "labctl-study-2_router.img"}) {
					t.Errorf("left: %q", got)
				}
			} else if got := s.list("vms"); len(got) > 0 {
				t.Errorf("left: %q", got)
			}
			if entries, err := os.ReadDir(filepath.Join(s.dataDir, "study")); err != nil || len(entries) > 0 {
				t.Errorf("left in the lab's directory: %v, %v", entries, err)
			}
			if labs, err := s.Labs(t.Context()); err != nil || provider == Libvirt && !slices.Equal(labs, []string{"study-2"}) {
				t.Errorf("labs: %q, %v", labs, err)
			}
		})
	}
}

func TestBoxImageGoesWithTheLastLab(t *testing.T) {
	const image = "bento-VAGRANTSLASH-ubuntu-24.04_vagrant_box_image_202502.21.0_box.img"
	s := newStage(t, Libvirt)
	first, second := study(t), study(t)
	second.Metadata.Name = "other"
	s.wantUp(first)
	s.put("volumes", image, "") // vagrant uploads it with the first machine
	s.wantUp(second)
	for _, name := range []string{"study", "other"} {
		if !slices.Contains(s.list("volumes"), image) {
			t.Errorf("%s: the image is gone while a lab uses it", name)
		}
		if _, err := s.Destroy(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(s.list("volumes"), image) {
		t.Error("the image is left")
	}

	// One that was there before any lab is somebody else's.
	s.put("volumes", image, "")
	s.wantUp(study(t))
	if _, err := s.Destroy(t.Context(), "study"); err != nil || !slices.Contains(s.list("volumes"), image) {
		t.Errorf("somebody else's image: %q, %v", s.list("volumes"), err)
	}
}

// TestEveryBoxThatWasNamed: the first cannot be had, the second replaces it in
// the file, and a machine that is made anew has the third.
func TestEveryBoxThatWasNamed(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	box := l.Providers.Vagrant
	box.Box, box.BoxVersion = "one/box", ""
	s.faults(fakeFault{Command: "up", Type: "Vagrant::Errors::BoxAddShortNotFound", Text: "The box 'one/box' could not be found or\ncould not be accessed in the remote catalog."})
	if _, errs := s.up(t.Context(), l); !errors.Is(errs["router"], ErrBox) {
		t.Fatal(errs)
	}
	box.Box = "two/box"
	s.wantUp(l)
	s.put("volumes", "two-VAGRANTSLASH-box_vagrant_box_image_0_box.img", "")
	if _, err := s.Destroy(t.Context(), "study", "k8s-w1"); err != nil {
		t.Fatal(err)
	}
	s.put("volumes", "three-VAGRANTSLASH-box_vagrant_box_image_0_box.img", "") // somebody's before
	box.Box = "three/box"
	s.wantUp(l)
	if _, err := s.Destroy(t.Context(), "study"); err != nil {
		t.Fatal(err)
	}
	if left := s.list("volumes"); !slices.Equal(left, []string{"three-VAGRANTSLASH-box_vagrant_box_image_0_box.img"}) {
		t.Errorf("left: %q", left)
	}
	// The proof would see them.
	s.put("volumes", "two-VAGRANTSLASH-box_vagrant_box_image_0_box.img", "")
	if o, err := s.Observe(t.Context(), "study"); err != nil || !slices.Equal(o.Objects, []string{"libvirt volume two-VAGRANTSLASH-box_vagrant_box_image_0_box.img"}) {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestProofNeedsLibvirt(t *testing.T) {
	s := newStage(t, Libvirt)
	s.wantUp(study(t))
	if _, err := s.Destroy(t.Context(), "study"); err != nil {
		t.Fatal(err)
	}
	s.write("no-libvirtd", nil)
	if _, err := s.Observe(t.Context(), "study"); !errors.Is(err, ErrLibvirt) || !strings.Contains(err.Error(), "("+cureLibvirt+")") {
		t.Errorf("the proof of a lab that stood on libvirt: %v", err)
	}
	// Nothing says that this one ever did.
	if _, err := s.Destroy(t.Context(), "other"); err != nil {
		t.Error(err)
	}
	if o, err := s.Observe(t.Context(), "other"); err != nil || !o.Empty() {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestDestroyNeedsVirsh(t *testing.T) {
	s := newStage(t, Libvirt)
	s.wantUp(study(t))
	if err := os.Remove(s.path("bin", "virsh")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Destroy(t.Context(), "study"); !errors.Is(err, errNoVirsh) || !strings.Contains(err.Error(), cureVirsh) {
		t.Errorf("%v", err)
	}
}

func TestStaleNodeIsDestroyed(t *testing.T) {
	s := newStage(t, Libvirt)
	l := study(t)
	s.wantUp(l)
	smaller := study(t)
	smaller.Nodes = slices.DeleteFunc(smaller.Nodes, func(e topo.Entry[topo.Node]) bool { return e.Name == "k8s-w0" })
	s.wantUp(smaller)
	changes, err := s.Destroy(t.Context(), "study", "k8s-w0")
	if err != nil || len(changes) != 1 || changes[0].String() != "k8s-w0: removed VM" {
		t.Errorf("destroy: %v, %v", changes, err)
	}
	if o, err := s.Observe(t.Context(), "study"); err != nil || len(o.Nodes) != 3 {
		t.Errorf("observed %+v, %v", o, err)
	}
}

func TestSSHHosts(t *testing.T) {
	s := newStage(t, Libvirt)
	if hosts, err := s.SSHHosts(t.Context(), "study"); err != nil || len(hosts) > 0 {
		t.Errorf("without a lab: %v, %v", hosts, err)
	}
	s.wantUp(study(t))
	if _, err := s.Halt(t.Context(), "study", "k8s-w1"); err != nil {
		t.Fatal(err)
	}
	hosts, err := s.SSHHosts(t.Context(), "study")
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, h := range hosts {
		nodes = append(nodes, h.Node)
	}
	if !slices.Equal(nodes, []string{"router", "k8s-ctr", "k8s-w0"}) {
		t.Errorf("nodes: %q", nodes)
	}
	if h := hosts[0]; h.HostName != "127.0.0.1" || h.User != "vagrant" || h.IdentityFile != "/a b/key" || h.KnownHosts != "/pins/study" {
		t.Errorf("%+v", h)
	}
}

func TestNoVagrant(t *testing.T) {
	s := newStage(t, Libvirt)
	t.Setenv("PATH", t.TempDir())
	if _, errs := s.up(t.Context(), study(t)); !errors.Is(errs["router"], ErrNoVagrant) {
		t.Errorf("up: %v", errs)
	}
	findings := s.Preflight(t.Context(), study(t))
	if !slices.ContainsFunc(findings, func(f provision.Finding) bool { return errors.Is(f.Err, ErrNoVagrant) && f.Cure != "" }) {
		t.Errorf("preflight: %+v", findings)
	}
}

// TestDestroySideBySide: what Vagrant does not manage at once it does one after
// another, and what it never manages is told of the machine that it was.
func TestDestroySideBySide(t *testing.T) {
	const text = "Call to virNetworkLookupByName failed: Network not found"
	stop := fakeFault{Command: "destroy", Node: "k8s-ctr", Type: "Vagrant::Errors::BatchMultiError",
		Text: "An error occurred while executing multiple actions in parallel.\nAny errors that occurred are shown below.\n\n" +
			"An unexpected error occurred when executing the action on the\n'k8s-ctr' machine. Please report this as a bug:\n\n" + text}
	for name, test := range map[string]struct {
		times int
		fails bool
	}{"once": {1, false}, "ever": {9, true}} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, Libvirt)
			s.wantUp(study(t))
			stop.Times = test.times
			s.faults(stop)
			_, err := s.Destroy(t.Context(), "study")
			if !test.fails {
				if left := s.list("ids"); err != nil || len(left) > 0 {
					t.Errorf("left %q, %v", left, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "k8s-ctr") || !strings.Contains(err.Error(), text) {
				t.Errorf("it says %v", err)
			}
		})
	}
}
