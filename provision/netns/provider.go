//go:build linux

package netns

import (
	"cmp"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/provision"
)

// Provider makes labs of network namespaces. It needs CAP_SYS_ADMIN and
// CAP_NET_ADMIN, which root has.
type Provider struct {
	options Options
	// noDummy is known once the kernel has refused a dummy device.
	noDummy atomic.Bool

	mu    sync.Mutex
	locks map[string]*sync.Mutex
}

var (
	_ provision.Provider     = (*Provider)(nil)
	_ provision.KernelSharer = (*Provider)(nil)
)

// New returns a provider that keeps its files where options say.
func New(options Options) *Provider {
	return &Provider{options: options, locks: map[string]*sync.Mutex{}}
}

// Name returns "netns".
func (p *Provider) Name() string { return Name }

// KernelRelease returns what uname -r prints.
func (p *Provider) KernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// lock keeps two calls in this process from working on one object at once;
// between processes the lab's own lock does. It returns what unlocks.
func (p *Provider) lock(lab, object string) func() {
	key := lab + "/" + object
	p.mu.Lock()
	l := p.locks[key]
	if l == nil {
		l = new(sync.Mutex)
		p.locks[key] = l
	}
	p.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// parallel is a little more than the processors: most of the work waits for
// locks in the kernel.
func (p *Provider) parallel() int {
	return cmp.Or(p.options.Parallel, max(4, 2*runtime.NumCPU()))
}
