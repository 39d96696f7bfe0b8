//go:build linux

package daemon

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netns"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/agent/tables"
)

// handleExplain answers what a packet's way is worked out from.
func (d *daemon) handleExplain(mux *http.ServeMux) {
	api.GetSnapshot.Handle(mux, d.getSnapshot)
	api.LookupPaths.Handle(mux, d.lookupPaths)
}

// getSnapshot reads the kernel. What cannot be read of a pod or of the maps is
// said in the snapshot; only the node's own tables are an error.
func (d *daemon) getSnapshot(_ context.Context, request api.SnapshotRequest) (api.Snapshot, error) {
	s := api.Snapshot{Pods: d.parts.pods.Pods(), Datapath: d.parts.status().Datapath}
	var err error
	if s.Space, err = tables.ReadSpace(netns.None()); err != nil {
		return s, err
	}
	for _, key := range request.Pods {
		err := inPod(s.Pods, key, func(ns netns.NsHandle) error {
			space, err := tables.ReadSpace(ns)
			if s.Spaces == nil {
				s.Spaces = make(map[string]api.Space)
			}
			if err == nil {
				s.Spaces[key] = space
			}
			return err
		})
		if err != nil {
			s.Missing = append(s.Missing, err.Error())
		}
	}
	if s.Datapath != nil {
		if err := d.readMaps(&s, request.Flows); err != nil {
			s.Missing = append(s.Missing, err.Error())
		}
	}
	return s, nil
}

// inPod opens the namespace of a pod of this node.
func inPod(pods []api.PodStatus, key string, do func(netns.NsHandle) error) error {
	i := slices.IndexFunc(pods, func(p api.PodStatus) bool { return p.Key() == key && p.PID > 0 })
	if i < 0 {
		return fmt.Errorf("pod %s does not run on this node", key)
	}
	ns, err := netns.GetFromPath(filepath.Join("/proc", strconv.Itoa(pods[i].PID), "ns/net"))
	if err == nil {
		defer ns.Close()
		err = do(ns)
	}
	if err != nil {
		return fmt.Errorf("look into pod %s: %w", key, err)
	}
	return nil
}

// readMaps reads services, and the flows whose client is one of the addresses.
func (d *daemon) readMaps(s *api.Snapshot, clients []netip.Addr) error {
	maps, err := inspect.Open(d.config.BPFDir)
	if err != nil {
		return err
	}
	services, err := maps.ServiceTable(d.parts.balancer.Names())
	if err != nil {
		return err
	}
	s.Services = services.Frontends
	if len(clients) == 0 {
		return nil
	}
	s.Flows, err = maps.FlowsOf(clients)
	return err
}

func (d *daemon) lookupPaths(_ context.Context, request api.PathRequest) (api.PathResponse, error) {
	response := api.PathResponse{Decisions: make([]api.PathDecision, len(request.Queries))}
	byPod := map[string][]int{}
	for i, q := range request.Queries {
		if !q.To.Is4() || (q.From.IsValid() && !q.From.Is4()) {
			return api.PathResponse{}, &api.Error{Code: api.CodeInvalid, Message: fmt.Sprintf("queries[%d]: want IPv4 addresses", i)}
		}
		byPod[q.Pod] = append(byPod[q.Pod], i)
	}
	pods := d.parts.pods.Pods()
	for key, at := range byPod {
		ask := func(ns netns.NsHandle) error { return paths(ns, request.Queries, at, response.Decisions) }
		err := error(nil)
		if key == "" {
			err = ask(netns.None())
		} else {
			err = inPod(pods, key, ask)
		}
		if err != nil {
			return api.PathResponse{}, err
		}
	}
	return response, nil
}

// paths answers the queries of the indexes in at, all of one namespace.
func paths(ns netns.NsHandle, queries []api.PathQuery, at []int, decisions []api.PathDecision) error {
	r, err := tables.Open(ns)
	if err != nil {
		return err
	}
	defer r.Close()
	asked := make([]api.PathQuery, len(at))
	for i, q := range at {
		asked[i] = queries[q]
	}
	answers, err := r.Paths(asked)
	for i, answer := range answers {
		decisions[at[i]] = answer
	}
	return err
}
