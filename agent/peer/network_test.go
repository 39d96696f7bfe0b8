//go:build linux

package peer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// network carries datagrams between exchanges of one synctest bubble.
type network struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*wire
	// lose says which datagram does not arrive; each is counted from 1.
	lose    func(n int) bool
	carried int
	bytes   int
}

type wire struct {
	network *network
	at      netip.AddrPort
	in      chan parcel
	once    sync.Once
	closed  chan struct{}
}

type parcel struct {
	from  netip.AddrPort
	bytes []byte
}

func newNetwork() *network {
	return &network{conns: map[netip.AddrPort]*wire{}, lose: func(int) bool { return false }}
}

func (n *network) listen(_ context.Context, at netip.AddrPort) (conn, error) {
	w := &wire{network: n, at: at, in: make(chan parcel, 10000), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[at] = w
	return w, nil
}

func (w *wire) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-w.in:
		return copy(b, p.bytes), p.from, nil
	case <-w.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (w *wire) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	w.network.mu.Lock()
	defer w.network.mu.Unlock()
	w.network.carried++
	w.network.bytes += len(b)
	if other := w.network.conns[to]; other != nil && !w.network.lose(w.network.carried) {
		other.in <- parcel{w.at, append([]byte(nil), b...)}
	}
	return len(b), nil
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// take resets the counters, and gives what they were.
func (n *network) take() (datagrams, bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	datagrams, bytes = n.carried, n.bytes
	n.carried, n.bytes = 0, 0
	return datagrams, bytes
}

// agent is an exchange that runs.
type agent struct {
	*Exchange
	stop    func()
	changes *int // calls of OnChange
}

func (n *network) run(t *testing.T, state api.State) agent {
	changes := new(int)
	x := New(Config{
		Report:   func(err error) { t.Error(err) },
		OnChange: func() { *changes++ },
	})
	x.listen = n.listen
	x.Set(state)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Run(ctx)
	}()
	return agent{x, func() { cancel(); <-done }, changes}
}

// settle lets everything happen that happens within d.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

// stateOf is node's state in a cluster of n nodes with pods.
func stateOf(node string, n int, pods ...api.Pod) api.State {
	cluster := &api.Cluster{Key: testKey, Pods: pods}
	for i := range n {
		cluster.Nodes = append(cluster.Nodes, api.Node{Name: fmt.Sprintf("n%d", i), Address: netip.AddrFrom4([4]byte{192, 168, byte(i), 100})})
	}
	return api.State{Node: node, Cluster: cluster}
}

func pod(name, node string) api.Pod {
	return api.Pod{Namespace: "default", Name: name, UID: "uid-" + name, Node: node, Grace: 30 * time.Second}
}

// status is the pod on its node, as "ready", "running" or "terminating".
func status(p api.Pod, how string) api.PodStatus {
	s := api.PodStatus{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Phase: api.PodRunning, Ready: how == "ready"}
	if how == "terminating" {
		s.Phase = api.PodTerminating
	}
	return s
}
