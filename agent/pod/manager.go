//go:build linux

package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

const (
	// firstEndpoint is the lowest number of a pod; those below it are the node's
	// own addresses.
	firstEndpoint = 16
	// retries of what failed are doubled from retryFirst to retryLast.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// glance is how often to look though nothing was heard.
	glance = 10 * time.Second
	// A burst of changes of the node's links is looked at once.
	linkQuiet = 20 * time.Millisecond
	// startsAtOnce bounds the sandboxes that are started at one time.
	startsAtOnce = 4
	// kindPod is the kind of the objects.
	kindPod = "pod"
)

// Config is what a [Manager] works on.
type Config struct {
	// DataDir is the agent's; pods are in pods below it.
	DataDir string
	// Cgroup is the node's directory in a cgroup2 hierarchy; empty for none, and
	// then pods have none.
	Cgroup string
	// Executable is the agent's own, from which sandboxes are started; it must
	// have the commands sandbox and exec. It may be replaced while they run.
	Executable string
	// Namespace is the node's network namespace; netns.None() is the caller's own.
	Namespace netns.NsHandle
	// Hosts is the node's hosts file, whose names resolve in pods too; empty for
	// /etc/hosts.
	Hosts string
	// Report is told each error that no object bears. It must not block.
	Report func(error)
}

// Manager makes a node's pods real. Its methods are safe for concurrent use.
type Manager struct {
	config  Config
	node    *netlink.Handle
	watch   *rtnl.Watch
	notices *notices
	prober  prober
	wake    chan struct{}
	slots   chan struct{}
	workers sync.WaitGroup

	mu       sync.Mutex
	state    *api.State
	version  uint64 // counts the states; a repeated one counts anew
	shared   uint64 // the version that the workers were told of
	pods     map[string]*worker
	refused  []api.Object // pods that no worker can have
	onChange []func()
}

// New opens the namespace and begins to listen to it; [Manager.Run] does the
// work, once.
func New(config Config) (*Manager, error) {
	if config.Hosts == "" {
		config.Hosts = "/etc/hosts"
	}
	m := &Manager{
		config: config,
		prober: prober{config.Namespace, config.Executable, config.DataDir},
		wake:   make(chan struct{}, 1),
		slots:  make(chan struct{}, startsAtOnce),
		pods:   make(map[string]*worker),
	}
	var err error
	if config.Namespace.IsOpen() {
		m.node, err = netlink.NewHandleAt(config.Namespace, unix.NETLINK_ROUTE)
	} else {
		m.node, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if m.watch, err = rtnl.NewWatch(config.Namespace, 0); err != nil {
		m.node.Close()
		return nil, err
	}
	if m.notices, err = openNotices(); err != nil {
		m.node.Close()
		return nil, errors.Join(err, m.watch.Close())
	}
	return m, nil
}

// OnChange calls changed, which must not block, whenever Pods may answer
// otherwise than before.
func (m *Manager) OnChange(changed func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onChange = append(m.onChange, changed)
}

func (m *Manager) changed() {
	m.mu.Lock()
	all := slices.Clone(m.onChange)
	m.mu.Unlock()
	for _, changed := range all {
		changed()
	}
}

// Set gives the state to hold, and returns at once. What somebody changed
// inside a pod is put right, too.
func (m *Manager) Set(state api.State) {
	m.mu.Lock()
	m.state = &state
	m.version++
	m.mu.Unlock()
	nudge(m.wake)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Pods is every pod on the node, those that are ending included, sorted by
// namespace and name.
func (m *Manager) Pods() []api.PodStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]api.PodStatus, 0, len(m.pods))
	for _, w := range m.pods {
		if w.status.Name == "" {
			continue // all that is left of it is a directory
		}
		s := w.status
		s.Containers = slices.Clone(s.Containers)
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b api.PodStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return list
}

// Objects is how each pod of the state that was set last stands. Settled means
// that each was looked at since, and none is pending or failed. A pod is in
// place when its containers were started, whether or not they go on running. One
// that is ending is no object, unless it cannot be removed.
func (m *Manager) Objects() (objects []api.Object, settled bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == nil {
		return nil, false
	}
	settled = m.shared == m.version
	objects = slices.Clone(m.refused)
	for _, w := range m.pods {
		if w.want == nil && w.object.Condition != api.Failed {
			continue
		}
		o := w.object
		if w.want != nil && w.seen != w.version {
			settled = false
		}
		o.Mended = w.mended
		objects = append(objects, o)
	}
	for _, o := range objects {
		settled = settled && o.Condition != api.Pending && o.Condition != api.Failed
	}
	slices.SortFunc(objects, func(a, b api.Object) int { return cmp.Compare(a.Name, b.Name) })
	return objects, settled
}

// Run works until ctx ends, and leaves everything in place.
func (m *Manager) Run(ctx context.Context) {
	var listening sync.WaitGroup
	listening.Go(m.notices.listen)
	listening.Go(m.listenLinks)
	m.loop(ctx)
	m.workers.Wait()
	m.notices.close()
	_ = m.watch.Close()
	listening.Wait()
	m.node.Close()
}

// listenLinks makes all pods look at their links when some link changed.
func (m *Manager) listenLinks() {
	for {
		err := m.watch.Wait()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			m.config.Report(err)
			time.Sleep(retryFirst) // an error that stays must not spin
		}
		time.Sleep(linkQuiet)
		m.mu.Lock()
		for _, w := range m.pods {
			w.links.Store(true)
			nudge(w.poke)
		}
		m.mu.Unlock()
	}
}

func (m *Manager) loop(ctx context.Context) {
	retry, adopted := time.Duration(0), false
	for {
		var again <-chan time.Time
		if retry > 0 {
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-again:
		}
		m.mu.Lock()
		idle := m.state == nil
		m.mu.Unlock()
		if idle {
			continue // not before it is known what is to stay
		}
		retry = min(max(2*retry, retryFirst), retryLast)
		if !adopted {
			if err := m.adopt(); err != nil {
				m.config.Report(fmt.Errorf("look for the pods that are there: %w", err))
				m.refuse(err)
				continue
			}
			adopted = true
		}
		retry = 0
		m.share(ctx)
		m.changed()
	}
}

// adopt finds what agents before left, by directories and by cgroups.
func (m *Manager) adopt() error {
	var uids []string
	for _, dir := range []string{m.config.DataDir, m.config.Cgroup} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(dir, "pods"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				uids = append(uids, e.Name())
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range uids {
		if m.pods[uid] != nil {
			continue
		}
		w := newWorker(m, uid)
		var r record
		if err := readJSON(w.dir, recordFile, &r); err == nil && r.Pod.Spec != nil {
			w.record = &r
			w.status = w.glimpse(&r)
		}
		m.pods[uid] = w
	}
	return nil
}

// refuse makes err the reason why no pod is there.
func (m *Manager) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = nil
	for _, p := range m.own() {
		m.refused = append(m.refused, failed(p, err))
	}
	m.shared = m.version
}

func failed(p api.Pod, err error) api.Object {
	return api.Object{Kind: kindPod, Name: p.Key(), Owner: api.OwnerAgent, Condition: api.Failed, Reason: err.Error()}
}

// own are the state's pods on this node.
func (m *Manager) own() []api.Pod {
	if m.state == nil || m.state.Cluster == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(m.state.Cluster.Pods), func(p api.Pod) bool {
		return p.Node != m.state.Node
	})
}

// share tells each worker what its pod is to be.
func (m *Manager) share(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = nil
	wanted := make(map[string]bool)
	for _, p := range m.own() {
		if err := m.check(p); err != nil {
			m.refused = append(m.refused, failed(p, err))
			continue
		}
		wanted[p.UID] = true
		w := m.pods[p.UID]
		if w == nil {
			w = newWorker(m, p.UID)
			m.pods[p.UID] = w
		}
		w.setWant(m.recordOf(p, w))
	}
	for uid, w := range m.pods {
		if !wanted[uid] {
			w.want = nil
		}
		if !w.runs {
			w.runs = true
			m.workers.Go(func() { w.run(ctx) })
		}
		nudge(w.urge)
	}
	m.shared = m.version
}

// check says why a pod cannot be made at all.
func (m *Manager) check(p api.Pod) error {
	switch {
	case p.Spec == nil:
		return errors.New("the state has no spec for it")
	case m.state.Pods == nil || !m.state.Pods.Gateway.IsValid():
		return errors.New("the node has no pod network")
	case m.state.Pods.MTU <= 0:
		return fmt.Errorf("the node's pod network has MTU %d", m.state.Pods.MTU)
	case p.UID == "" || p.UID == "." || p.UID == ".." || filepath.Base(p.UID) != p.UID:
		return fmt.Errorf("UID %q cannot be the name of a directory", p.UID)
	case !p.Address.Is4():
		return fmt.Errorf("address %s is not an IPv4 address", p.Address)
	default:
		return nil
	}
}

// recordOf is what the pod is to be here. Its endpoint is the lowest that is
// free, if it has none yet.
func (m *Manager) recordOf(p api.Pod, w *worker) *record {
	r := &record{Lab: m.state.Lab, Node: m.state.Node, Pod: p, Network: *m.state.Pods}
	r.Network.Peers = nil
	if m.config.Cgroup != "" {
		r.Cgroup = filepath.Join(m.config.Cgroup, "pods", p.UID)
	}
	used := make(map[uint32]bool)
	for _, other := range m.pods {
		used[other.status.Endpoint] = true
	}
	if r.Endpoint = w.status.Endpoint; r.Endpoint == 0 {
		for r.Endpoint = firstEndpoint; used[r.Endpoint]; {
			r.Endpoint++
		}
	}
	return r
}

// forget is called by a worker whose pod is gone, and says whether it may end.
func (m *Manager) forget(w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.want != nil {
		return false // it was wanted again meanwhile
	}
	delete(m.pods, w.uid)
	return true
}
