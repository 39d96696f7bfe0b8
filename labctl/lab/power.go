package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
)

// ErrNoPower is a provider whose nodes cannot be switched off and on.
var ErrNoPower = errors.New("nodes cannot be halted")

// ownKernel is how much longer a node with a kernel of its own may take for
// everything: a VM that is emulated is as much slower, and more.
const ownKernel = 8

// patient is how long to wait for what takes d on a node that shares this
// machine's kernel.
func (l *Lab) patient(d time.Duration) time.Duration {
	if l.sharesKernel() {
		return d
	}
	return d * ownKernel
}

func (l *Lab) sharesKernel() bool {
	_, shared := l.Provider.(provision.KernelSharer)
	return shared
}

// PowerReport is what halt and start did.
type PowerReport struct {
	Lab     string             `json:"lab"`
	Changes []provision.Change `json:"changes"`
	Took    time.Duration      `json:"tookNanoseconds"`
}

// Halt shuts the named nodes down, or all of them. They keep what is on their
// disks. A provider that cannot do it is an error that matches [ErrNoPower].
func (l *Lab) Halt(ctx context.Context, nodes ...string) (PowerReport, error) {
	return l.power(ctx, nodes, func(u *up, with provision.Powered) error {
		return u.carryOut(ctx, []step{{name: "halt", do: func(ctx context.Context) error {
			changes, err := with.Halt(ctx, l.Name, nodes...)
			u.changed(changes...)
			return err
		}}})
	})
}

// Start boots the named nodes, or all of them, makes those that are not there,
// and waits until their agents hold what the lab says.
func (l *Lab) Start(ctx context.Context, nodes ...string) (PowerReport, error) {
	return l.power(ctx, nodes, func(u *up, with provision.Powered) error {
		u.only = nodes
		return u.carryOut(ctx, []step{
			{name: "start", do: func(ctx context.Context) error {
				changes, err := with.Start(ctx, u.topology, nodes...)
				u.changed(changes...)
				return err
			}},
			{name: "nodes", do: u.nodes},
			{name: "agents", do: u.startAgents},
			{name: "state", do: u.sendStates},
			{name: "settle", do: u.settle, told: u.standing},
		})
	})
}

// power works on nodes of the lab as it is, under its lock.
func (l *Lab) power(ctx context.Context, nodes []string, do func(*up, provision.Powered) error) (PowerReport, error) {
	start := time.Now()
	report := PowerReport{Lab: l.Name, Changes: []provision.Change{}}
	powered, ok := l.Provider.(provision.Powered)
	if !ok {
		return report, fmt.Errorf("%w on %s (labctl down removes the lab, labctl up makes it again)", ErrNoPower, l.Provider.Name())
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return report, err
	}
	defer unlock()
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return report, err
	}
	for _, n := range nodes {
		if _, ok := saved.Topology.Nodes.Get(n); !ok {
			return report, fmt.Errorf("lab %s has no node %s; it has %s: %w", l.Name, n, strings.Join(saved.Topology.Nodes.Names(), ", "), provision.ErrNotFound)
		}
	}
	staged, err := saved.Topology.Stage(saved.Stage)
	if err != nil {
		return report, err
	}
	u := l.newUp(staged, saved)
	defer u.agents.Close()
	err = do(u, powered)
	report.Changes, report.Took = append(report.Changes, u.report.Changes...), time.Since(start)
	return report, err
}

// SSHHosts is how ssh(1) reaches the nodes. A provider whose nodes it does not
// reach is an error that matches [errors.ErrUnsupported].
func (l *Lab) SSHHosts(ctx context.Context) ([]provision.SSHHost, error) {
	reachable, ok := l.Provider.(provision.SSHReachable)
	if !ok {
		return nil, fmt.Errorf("nodes on %s have no SSH: %w (labctl ssh NODE is a shell there)", l.Provider.Name(), errors.ErrUnsupported)
	}
	return reachable.SSHHosts(ctx, l.Name)
}
