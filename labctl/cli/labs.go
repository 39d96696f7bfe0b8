package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/embedded"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/inventory"
	"github.com/native-routing/labctl/provision/machine"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/provision/vagrant"
	"github.com/native-routing/labctl/topologies/topo"
)

// providerNames are what a lab can stand on, the default first.
func providerNames() []string { return []string{netns.Name, vagrant.Name, inventory.Name} }

// newProvider returns the provider of that name. tell hears what each node is at.
func (a *app) newProvider(name string, tell func(node, what string)) (provision.Provider, error) {
	switch name {
	case netns.Name:
		return netns.New(netns.Options{RunDir: a.runDir, DataDir: a.dataDir}), nil
	case vagrant.Name:
		return vagrant.New(vagrant.Options{
			DataDir: a.dataDir, HostOnly: a.hostOnly, Tell: tell,
			Machines: machine.New(machine.Options{DataDir: a.dataDir, Tell: tell}),
		}), nil
	case inventory.Name:
		return inventory.New(inventory.Options{DataDir: a.dataDir, Tell: tell}), nil
	}
	return nil, usageError{fmt.Errorf("--provider %s: there is no such provider; there are %s", name, strings.Join(providerNames(), ", "))}
}

// open returns the lab of that name, on what it stands on already; a new one on
// what --provider says.
func (a *app) open(ctx context.Context, name string, story *ui.Progress) (*lab.Lab, error) {
	store := lab.Store{Dir: a.dataDir}
	provider, err := a.newProvider(cmp.Or(a.provider, a.standsOn(ctx, store, name), netns.Name), story.Tell)
	if err != nil {
		return nil, err
	}
	return &lab.Lab{
		Name: name, Provider: provider, Store: store, Agent: embedded.Binary, Version: a.Version, Story: storyOf{story}, Say: a.say,
	}, nil
}

// standsOn is the provider of a lab that is up: the one that was saved, or the
// one on which something bears its mark. Empty where there is none.
func (a *app) standsOn(ctx context.Context, store lab.Store, name string) string {
	if saved, err := store.Load(name); err == nil {
		return saved.Provider
	}
	for _, provider := range providerNames() {
		if marked, err := a.marked(ctx, provider); err == nil && slices.Contains(marked, name) {
			return provider
		}
	}
	return ""
}

// marked lists the labs of which a provider finds a mark.
func (a *app) marked(ctx context.Context, provider string) ([]string, error) {
	p, err := a.newProvider(provider, func(string, string) {})
	if err != nil {
		return nil, err
	}
	return marks(ctx, p)
}

// lookTime is how long a provider may look for marks: a daemon that it asks may hang.
const lookTime = 5 * time.Second

// marks are those that the provider finds in time. One that this system cannot
// carry finds none.
func marks(ctx context.Context, p provision.Provider) ([]string, error) {
	within, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	labs, err := p.Labs(within)
	if errors.Is(err, provision.ErrUnsupported) {
		return nil, nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = ctx.Err()
	}
	return labs, err
}

// current returns the lab that is up: the one that --lab names, or the only one.
func (a *app) current(ctx context.Context, story *ui.Progress) (*lab.Lab, error) {
	if a.lab != "" {
		if err := topo.CheckName(a.lab); err != nil {
			return nil, usageError{fmt.Errorf("--lab: %w", err)}
		}
		return a.openCurrent(ctx, a.lab, story)
	}
	labs, err := a.labs(ctx)
	if err != nil {
		return nil, err
	}
	switch len(labs) {
	case 0:
		if runtime.GOOS == "linux" && os.Geteuid() != 0 {
			return nil, errNotRoots
		}
		return nil, fmt.Errorf("%w (labctl up brings one up)", errNoneUp)
	case 1:
		return a.openCurrent(ctx, labs[0], story)
	}
	return nil, usageError{fmt.Errorf("several labs are up: name one with --lab (%s)", strings.Join(labs, ", "))}
}

// openCurrent opens a lab that is up. To look for it on another provider than
// its own would show an empty place.
func (a *app) openCurrent(ctx context.Context, name string, story *ui.Progress) (*lab.Lab, error) {
	if on := a.standsOn(ctx, lab.Store{Dir: a.dataDir}, name); a.provider != "" && on != "" && on != a.provider {
		return nil, usageError{fmt.Errorf("--provider %s: lab %s stands on %s (leave the flag out)", a.provider, name, on)}
	}
	return a.open(ctx, name, story)
}

// labs lists what was brought up, and what bears a mark on this machine though
// nothing says any more that it was.
func (a *app) labs(ctx context.Context) ([]string, error) {
	all, err := lab.Store{Dir: a.dataDir}.Labs()
	if err != nil {
		return nil, err
	}
	for _, provider := range providerNames() {
		marked, err := a.marked(ctx, provider)
		if err != nil {
			return nil, err
		}
		all = append(all, marked...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// knownNodes refuses names that are no nodes of the lab.
func knownNodes(l *lab.Lab, names []string) error {
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, ok := saved.Topology.Nodes.Get(n); !ok {
			return usageError{fmt.Errorf("lab %s has no node %s; it has %s", l.Name, n, strings.Join(saved.Topology.Nodes.Names(), ", "))}
		}
	}
	return nil
}

// There may be no lab, or one that only root sees.
var (
	errNoneUp   = errors.New("no lab is up")
	errNotRoots = errors.New("no lab of yours is up, and labs of namespaces are root's (sudo labctl …)")
)

// silent is the story of what is done in an instant.
func silent() *ui.Progress { return ui.NewProgress(io.Discard, ui.Quiet) }
