package vagrant

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/machine"
)

// probeTime is how long a machine may take to take a connection. One on this
// host takes milliseconds.
const probeTime = 2 * time.Second

// parseSSHConfig reads what vagrant ssh-config prints: blocks of ssh_config(5)
// with one name each.
func parseSSHConfig(text string) map[string]machine.Access {
	found := map[string]machine.Access{}
	var name string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		a := found[name]
		switch strings.ToLower(key) {
		case "host":
			name, a = value, machine.Access{Port: 22}
		case "hostname":
			a.Host = value
		case "user":
			a.User = value
		case "port":
			if port, err := strconv.Atoi(value); err == nil {
				a.Port = port
			}
		case "identityfile":
			// From 2.4 on Vagrant names its insecure keys of two kinds; boxes that
			// take only one take the RSA key.
			if a.KeyFile == "" || filepath.Ext(value) == ".rsa" {
				a.KeyFile = value
			}
		default:
			continue
		}
		if name != "" {
			found[name] = a
		}
	}
	maps.DeleteFunc(found, func(_ string, a machine.Access) bool { return a.Host == "" || a.User == "" })
	return found
}

// reached is ssh.json: how each machine was reached when it was last looked up.
type reached map[string]machine.Access

func (p paths) loadReached() reached {
	r := reached{}
	data, err := os.ReadFile(p.ssh())
	if err != nil || json.Unmarshal(data, &r) != nil {
		return reached{} // it is looked up again
	}
	return r
}

// forget drops what is known of machines that change now.
func (l *lab) forget(nodes ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.at.loadReached()
	before := len(r)
	for _, n := range nodes {
		delete(r, n)
		delete(l.running, n)
	}
	l.seen = nil
	if len(r) == before {
		return nil
	}
	return l.at.writeJSON(l.at.ssh(), r)
}

// known is how a machine was reached last; false where that is not known. The
// key may have come after the address was asked for.
func (l *lab) known(node, provider string) (machine.Access, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.at.loadReached()[node]
	if key := l.at.key(node, provider); ok && exists(key) {
		a.KeyFile = key
	}
	return a, ok
}

// answers says whether something takes connections there.
func answers(ctx context.Context, a machine.Access) bool {
	dialer := net.Dialer{Timeout: probeTime}
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.Host, strconv.Itoa(a.Port)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// answers lets a batch wait for the answer: where there is none, the machine is
// to be booted with the others.
func (l *lab) answers(ctx context.Context, a machine.Access) bool {
	l.probing.RLock()
	defer l.probing.RUnlock()
	return answers(ctx, a)
}

// lookUp asks vagrant how a running machine is reached, and in the same breath
// all others that are known to run: each call costs seconds.
func (p *Provider) lookUp(ctx context.Context, l *lab, provider, node string) (machine.Access, error) {
	if err := l.asking.lock(ctx); err != nil {
		return machine.Access{}, err
	}
	defer l.asking.unlock()
	if a, ok := l.known(node, provider); ok {
		return a, nil // another call brought it
	}
	l.mu.Lock()
	names := slices.DeleteFunc(slices.Collect(maps.Keys(l.running)), func(n string) bool {
		_, ok := l.at.loadReached()[n]
		return ok || n == node
	})
	l.mu.Unlock()
	slices.Sort(names)
	found, err := p.sshConfig(ctx, l, provider, append([]string{node}, names...))
	var failed *failure
	if len(names) > 0 && errors.As(err, &failed) {
		// One of the others may have gone down: vagrant then tells nothing of any.
		found, err = p.sshConfig(ctx, l, provider, []string{node})
	}
	if err != nil {
		return machine.Access{}, p.only(l, node, err)
	}
	if _, ok := found[node]; !ok {
		return machine.Access{}, fmt.Errorf("%s: vagrant does not say how it is reached (%s)", node, logged(l.at.log()))
	}
	l.mu.Lock()
	all := l.at.loadReached()
	maps.Copy(all, found)
	err = l.at.writeJSON(l.at.ssh(), all)
	l.mu.Unlock()
	a, _ := l.known(node, provider)
	return a, err
}

func (p *Provider) sshConfig(ctx context.Context, l *lab, provider string, nodes []string) (map[string]machine.Access, error) {
	events, err := p.look(ctx, l, provider, append([]string{"ssh-config"}, nodes...)...)
	found := map[string]machine.Access{}
	for _, e := range events {
		if e.Type == "ssh-config" {
			maps.Copy(found, parseSSHConfig(e.data(0)))
		}
	}
	return found, err
}

// SSHHosts returns the running nodes in the order of the Vagrantfile, which is the topology's.
func (p *Provider) SSHHosts(ctx context.Context, name string) ([]provision.SSHHost, error) {
	l := p.lab(name)
	s, err := l.at.load()
	if errors.Is(err, errNoSettings) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	states, err := p.states(ctx, l, s)
	if err != nil {
		return nil, err
	}
	var hosts []provision.SSHHost
	for _, m := range states {
		if standing(m.state) != provision.NodeRunning {
			continue
		}
		a, ok := l.known(m.node, s.Provider)
		if !ok || !answers(ctx, a) {
			if err := l.forget(m.node); err != nil {
				return nil, err
			}
			if a, err = p.lookUp(ctx, l, s.Provider, m.node); err != nil {
				return nil, err
			}
		}
		hosts = append(hosts, provision.SSHHost{Node: m.node, HostName: a.Host, Port: a.Port, User: a.User,
			IdentityFile: a.KeyFile, KnownHosts: p.options.Machines.KnownHosts(name)})
	}
	return hosts, nil
}
