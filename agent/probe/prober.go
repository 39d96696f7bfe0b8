//go:build linux

package probe

import (
	"fmt"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
)

// Config is what a [Prober] must know of its node. Its functions may be called
// at any time and from several goroutines.
type Config struct {
	// Netns finds the network namespace of a pod of this node, such as
	// /proc/4711/ns/net; false for a pod that is not here. Nil: there are none.
	Netns func(pod string) (path string, ok bool)
	// Resolver is how names are resolved now. Nil: they are not.
	Resolver func() Resolver
}

// Resolver is what a resolv.conf says, the same for the node and its pods.
type Resolver struct {
	// Server answers over UDP; the zero value where there is none.
	Server netip.AddrPort
	// Search are the domains that a short name is tried in, in order.
	Search []string
	// Dots is how many dots make a name that is tried as it stands before the
	// search list (ndots); 0 is Kubernetes' 5.
	Dots int
}

// Prober sends from the node and from its pods. It holds nothing between two
// requests, and several may run at once.
type Prober struct{ config Config }

// New returns a prober of a node.
func New(config Config) *Prober { return &Prober{config} }

// rooms are the namespaces that one request needs, each entered once.
type rooms struct {
	byPod map[string]*room
	errs  map[string]error // why a pod's was not entered
}

func (p *Prober) enter(pods []string) rooms {
	r := rooms{map[string]*room{"": nil}, map[string]error{}}
	for _, pod := range pods {
		if _, done := r.byPod[pod]; done || r.errs[pod] != nil {
			continue
		}
		room, err := p.roomOf(pod)
		if err != nil {
			r.errs[pod] = err
			continue
		}
		r.byPod[pod] = room
	}
	return r
}

func (p *Prober) roomOf(pod string) (*room, error) {
	if p.config.Netns != nil {
		if path, ok := p.config.Netns(pod); ok {
			return enter(path)
		}
	}
	return nil, fmt.Errorf("pod %s is not on this node", pod)
}

func (r rooms) leave() {
	for _, room := range r.byPod {
		room.leave()
	}
}

// In runs do on a thread that is in the namespace of a pod, or of the node where
// pod is empty. Sockets that do opens stay there.
func (p *Prober) In(pod string, do func() error) error {
	if pod == "" {
		return do()
	}
	room, err := p.roomOf(pod)
	if err != nil {
		return invalid("%s", err)
	}
	defer room.leave()
	return room.do(do)
}

func (p *Prober) resolver() Resolver {
	var r Resolver
	if p.config.Resolver != nil {
		r = p.config.Resolver()
	}
	if r.Dots == 0 {
		r.Dots = kubernetesDots
	}
	return r
}

// kubernetesDots is the ndots that kubelet writes for pods that use the
// cluster's DNS.
const kubernetesDots = 5

// localError is a failure that this node's own kernel or state causes.
func localError(err error) *api.ProbeError {
	return &api.ProbeError{Kind: kindLocal, Message: err.Error()}
}
