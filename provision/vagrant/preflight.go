package vagrant

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-version"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// oldest is the first Vagrant that drives VirtualBox 7 (its changelog of 2.3.2).
const oldest = "2.3.2"

// Preflight asks vagrant and its provider for their versions, and looks at what
// this machine has for VMs.
func (p *Provider) Preflight(ctx context.Context, t *topo.Topology) []provision.Finding {
	provider, hostOnly := p.options.provider(t), p.options.HostOnly
	if s, err := p.options.paths(t.Metadata.Name).load(); err == nil {
		provider, hostOnly = s.Provider, hostOnly || s.HostOnly
	}
	looks := []func() []provision.Finding{
		func() []provision.Finding { return p.lookAtVagrant(ctx, t) },
		func() []provision.Finding { return p.lookAtBox(t, provider) },
		func() []provision.Finding { return p.lookAtRoom(t, provider) },
	}
	made := len(p.options.paths(t.Metadata.Name).made(provider)) > 0
	if provider == VirtualBox {
		looks = append(looks, func() []provision.Finding { return p.lookAtVirtualBox(ctx, t, hostOnly) })
	} else {
		looks = append(looks, func() []provision.Finding { return p.lookAtLibvirt(ctx) })
		if !made { // what made machines is there; to ask for it takes a second
			looks = append(looks, func() []provision.Finding { return p.lookAtPlugin(ctx) })
		}
	}
	found := make([][]provision.Finding, len(looks))
	var all sync.WaitGroup
	for i, look := range looks {
		all.Go(func() { found[i] = look() })
	}
	all.Wait()
	return slices.Concat(found...)
}

func fine(subject, detail string) provision.Finding {
	return provision.Finding{Severity: provision.Fine, Subject: subject, Detail: detail}
}

func missing(subject string, class error, detail, cure string) provision.Finding {
	return provision.Finding{Severity: provision.Missing, Subject: subject, Detail: detail, Cure: cure, Err: class}
}

func (p *Provider) lookAtVagrant(ctx context.Context, t *topo.Topology) []provision.Finding {
	path, err := exec.LookPath(p.options.command())
	if err != nil {
		return []provision.Finding{missing("vagrant", ErrNoVagrant, ErrNoVagrant.Error(), cureNoVagrant)}
	}
	out, err := output(ctx, path, "--version")
	if err != nil {
		return []provision.Finding{missing("vagrant", ErrVagrant, err.Error(), cureNoVagrant)}
	}
	found := strings.TrimSpace(strings.TrimPrefix(out, "Vagrant "))
	v, err := version.NewVersion(found)
	if err != nil {
		return []provision.Finding{missing("vagrant", ErrVersion, fmt.Sprintf("%q is no version", found), cureNoVagrant)}
	}
	if v.LessThan(version.Must(version.NewVersion(oldest))) {
		return []provision.Finding{missing("vagrant", ErrVersion,
			fmt.Sprintf("it is %s; %s is the first that drives VirtualBox 7", found, oldest), cureNoVagrant)}
	}
	findings := []provision.Finding{fine("vagrant", found)}
	for _, err := range t.Requires.Check(topo.Versions{Vagrant: found}) {
		findings = append(findings, provision.Finding{Severity: provision.Missing, Subject: "requires", Detail: err.Error(), Err: err})
	}
	return findings
}

// lookAtBox only says which box it will be: whether it is here or can be had,
// vagrant up finds out.
func (p *Provider) lookAtBox(t *topo.Topology, provider string) []provision.Finding {
	box, version := boxOf(t)
	return []provision.Finding{fine("box", strings.TrimSpace(box+" "+version)+" for "+provider)}
}

func (p *Provider) lookAtPlugin(ctx context.Context) []provision.Finding {
	path, err := exec.LookPath(p.options.command())
	if err != nil {
		return nil // said already
	}
	out, err := output(ctx, path, "plugin", "list", "--machine-readable")
	if err != nil {
		return []provision.Finding{missing("vagrant-libvirt", ErrVagrant, err.Error(), curePlugin)}
	}
	for line := range strings.Lines(out) {
		e, ok := parseEvent(strings.TrimRight(line, "\n"))
		if ok && e.Target == "vagrant-libvirt" && e.Type == "plugin-version" {
			v, _, _ := strings.Cut(e.data(0), ",")
			return []provision.Finding{fine("vagrant-libvirt", v)}
		}
	}
	return []provision.Finding{missing("vagrant-libvirt", ErrPlugin, ErrPlugin.Error(), curePlugin)}
}

func (p *Provider) lookAtVirtualBox(ctx context.Context, t *topo.Topology, hostOnly bool) []provision.Finding {
	out, err := p.vboxManage.run(ctx, "--version")
	if errors.Is(err, errNoVBoxManage) {
		return []provision.Finding{missing("VirtualBox", ErrVirtualBox, "there is no VBoxManage on the PATH", cureVirtualBox)}
	}
	if err != nil {
		return []provision.Finding{missing("VirtualBox", ErrVirtualBox, err.Error(), cureVirtualBox)}
	}
	// Warnings, such as of a missing kernel module, stand before the version.
	lines := strings.Split(strings.TrimSpace(out), "\n")
	findings := []provision.Finding{fine("VirtualBox", lines[len(lines)-1])}
	if strings.Contains(out, "WARNING") {
		findings[0] = missing("VirtualBox", ErrVirtualBox, gist(out), "sudo /sbin/vboxconfig")
	}
	if hostOnly {
		findings = append(findings, lookAtRanges(t)...)
	}
	return findings
}
