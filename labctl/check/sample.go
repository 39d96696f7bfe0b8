package check

// The most that one verification asks of each kind before it begins to sample.
const (
	mostDirects  = 4000
	mostBalanced = 6000 // requests
	mostPorts    = 4000 // requests
	mostNames    = 2000
	mostEchoes   = 6000
)

// sample picks from a table of askers and of what they ask, where that is too
// much for the machine: the leads ask everything, of the others every
// stride-th, each another one.
type sample struct{ stride int }

func newSample(total, most int) sample { return sample{(total + most - 1) / max(most, 1)} }

func (x sample) takes(a asker, number, object int) bool {
	return a.lead || x.stride <= 1 || (number+object)%x.stride == 0
}

// samples are those of a plan.
type samples struct{ directs, ports, names, echoes sample }

// size up what everybody asking everything would come to.
func (s *services) sizeUp() {
	askers := len(s.askers)
	directs, balanced, ports, interfaces := 0, 0, 0, 0
	for _, n := range s.cluster.Nodes {
		interfaces += len(n.Addresses)
	}
	for _, service := range s.cluster.Services {
		for i := range service.Ports {
			n := len(s.backends(service, i, nil))
			directs += n
			balanced += enough(service, n)
			if service.Ports[i].NodePort != 0 {
				ports += fewRequests * interfaces
			}
		}
	}
	s.samples = samples{
		directs: newSample(askers*directs, mostDirects), ports: newSample(askers*ports, mostPorts),
		names: newSample(2*askers*len(s.cluster.Services), mostNames), echoes: newSample(askers*(askers+interfaces), mostEchoes),
	}
	s.fewer = askers*balanced > mostBalanced
	if s.fewer || s.samples.directs.stride > 1 || s.samples.ports.stride > 1 || s.samples.names.stride > 1 || s.samples.echoes.stride > 1 {
		s.warn(s.say.Sprintf("so many pods and services are sampled: a node and one pod of each ask for everything, the other %d askers for a part", s.followers()))
	}
}

func (s *services) followers() (count int) {
	for _, a := range s.askers {
		if !a.lead {
			count++
		}
	}
	return count
}

// requests is how often an asker calls a service: where there is much to ask,
// only one asker of each node draws every backend.
func (s *services) requests(a asker, count int) (int, bool) {
	if !s.fewer || a.lead && (a.pod != "" || !s.podAsks(a.node)) {
		return count, true
	}
	return min(count, fewRequests), count <= fewRequests
}

func (s *services) podAsks(node string) bool {
	for _, a := range s.askers {
		if a.node == node && a.pod != "" {
			return true
		}
	}
	return false
}
