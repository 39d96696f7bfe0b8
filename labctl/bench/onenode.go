//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies/topo"
)

// The lab of one node, and the pods on it.
const (
	oneNode     = "k8s-ctr"
	oneTopology = `apiVersion: labctl/v1
kind: Topology
metadata: {name: %s}
networks: {lan: {cidr: 192.168.10.0/24, mtu: 1500}}
cluster:
  podCIDR: 172.20.0.0/16
  serviceCIDR: 10.96.0.0/12
  routingMode: native
  autoDirectNodeRoutes: true
  nativeRoutingCIDR: 172.20.0.0/16
  masquerade: true
  kubeProxyReplacement: true
nodes:
  k8s-ctr: {role: control-plane, podCIDR: 172.20.0.0/24, interfaces: {eth1: {network: lan, address: 192.168.10.100/24}}}
`
	onePod = `apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: %s}}
spec:
  containers: [{name: tools, image: nicolaka/netshoot, command: [sleep, infinity]}]
  terminationGracePeriodSeconds: 0
---
`
	oneService = `apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports:
`
	// Port 80 leads to the first port of a server, and so on.
	oneServicePort     = "  - {name: p%d, port: %d, targetPort: %d}\n"
	firstPortOfService = 80
	lanesOfService     = 2
)

// node is the one of a lab, with its agent spoken to directly.
type node struct {
	lab   *lab.Lab
	on    provision.Node
	http  *http.Client
	api   *api.Client
	state api.State // what labctl gave the agent
}

// newNode brings a lab of one node up, with a client pod and server pods if asked.
func (r *rig) newNode(ctx context.Context, pods bool) (*node, error) {
	t, err := topo.Load("generated", strings.NewReader(fmt.Sprintf(oneTopology, r.name)))
	if err != nil {
		return nil, err
	}
	var objects manifest.Objects
	if pods {
		if objects, _, err = manifest.Decode("generated", strings.NewReader(onePods())); err != nil {
			return nil, err
		}
	}
	n := &node{}
	if n.lab, err = r.upWith(ctx, t, objects); err != nil {
		return nil, err
	}
	if err := podsReady(ctx, n.lab); err != nil {
		return nil, err
	}
	return n, n.open(ctx, r)
}

// onePods is a client, servers, and their service.
func onePods() string {
	var text strings.Builder
	fmt.Fprintf(&text, onePod, "client", "client")
	for _, name := range serverNames() {
		fmt.Fprintf(&text, onePod, name, "server")
	}
	text.WriteString(oneService)
	for i := range lanesOfService * portsOfLane {
		fmt.Fprintf(&text, oneServicePort, i, firstPortOfService+i, connectPort+i)
	}
	return text.String()
}

// open finds the agent, and what it was given.
func (n *node) open(ctx context.Context, r *rig) (err error) {
	if n.on, err = netns.New(r.options).OpenNode(ctx, r.name, oneNode); err != nil {
		return err
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(n.on.RunDir(), "agent.sock"))
	}
	n.api = api.NewClient(dial)
	n.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	text, err := os.ReadFile(filepath.Join(n.on.Dir(), "desired.json"))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &n.state)
}

func (n *node) close() {
	n.api.Close()
	n.http.CloseIdleConnections()
	n.on.Close()
}

// with is the node's state with more services, of three backends each that do
// not exist and are no pods: those are taken to be ready.
func (n *node) with(generation string, services int) api.State {
	state, cluster := n.state, *n.state.Cluster
	state.Generation = generation
	for i := range services {
		s := api.Service{
			Namespace: "default", Name: fmt.Sprintf("service-%05d", i), Type: api.ClusterIP, ClusterIP: rulesService(i),
			Ports: []api.ServicePort{{Protocol: "TCP", Port: rulesPort}},
		}
		for j := range serversPerLane {
			s.Backends = append(s.Backends, api.Backend{Address: elsewhere(i, j), Node: "elsewhere", Ports: []uint16{connectPort}})
		}
		cluster.Services = append(cluster.Services[:len(cluster.Services):len(cluster.Services)], s)
	}
	state.Cluster = &cluster
	return state
}

// put sends a state that is JSON already: PutState without labctl's part.
func (n *node) put(ctx context.Context, state []byte) error {
	request, err := http.NewRequestWithContext(ctx, api.PutState.Method, "http://agent"+api.PutState.Path, bytes.NewReader(state))
	if err != nil {
		return err
	}
	answer, err := n.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the agent answers %s: %s", answer.Status, text)
	}
	return err
}

// metric is one that the agent publishes, without labels.
func (n *node) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+api.MetricsPath, nil)
	if err != nil {
		return 0, err
	}
	answer, err := n.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "\n"+name+" ")
	if !found {
		return 0, fmt.Errorf("the agent has no metric %s", name)
	}
	value, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(value, 64)
}

// podsByName are the agent's, by their names.
func (n *node) podsByName(ctx context.Context) (map[string]api.PodStatus, error) {
	list, err := api.GetPods.Call(ctx, n.api, api.None{})
	if err != nil {
		return nil, err
	}
	pods := map[string]api.PodStatus{}
	for _, p := range list.Pods {
		pods[p.Name] = p
	}
	return pods, nil
}

// service is the address of one in the state.
func (n *node) service(name string) (netip.Addr, error) {
	for _, s := range n.state.Cluster.Services {
		if s.Name == name {
			return s.ClusterIP, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the state has no service %s", name)
}
