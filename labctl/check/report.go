// Package check verifies a running lab: what must hold follows purely from the
// topology and from what was deployed, what holds comes from a [Prober] or a
// [ServiceProber], and each difference is reported with its place, its cause and
// its cure. [Run] verifies routes, [RunServices] pods and services, [RunAll] both.
//
// A request between pods that fails is followed by an echo on the same way,
// which every node looks out for: the place of the loss is seen, the cause found
// as for routes, and so the same fault has the same words in both. What a stage
// declares of packets holds for answers too: where the way from B to A is
// declared lost, a request from A to B loses its answer there.
//
// # The scenarios of Cilium's connectivity test
//
// Those of "cilium connectivity test" that need neither policies nor the
// Internet, and the group that covers each:
//
//	scenario                  group      how
//	pod-to-pod                direct     every pod requests every backend's own address
//	client-to-client          reach      every pod sends an echo to every other pod
//	pod-to-service            service    every pod requests every service, until each backend was drawn
//	pod-to-host               reach      every pod sends an echo to every address of every node, its own too
//	host-to-pod               direct     every node requests every backend; reach: echoes to the other pods
//	pod-to-cidr               source     every pod requests the router's page on all its addresses (10.10.x)
//	pod-to-remote-nodeport    nodeport   every pod and node requests each NodePort on the other nodes
//	pod-to-local-nodeport     nodeport   the same on its own node
//	outside-to-nodeport       nodeport   nodes outside the cluster request each NodePort on each node
//	from-cidr-to-pod          direct     nodes outside the cluster request every backend's own address
//	pod-to-controlplane-host  reach      among pod-to-host
//	no-unexpected-packet-drops drops     the datapath's counters before and after
//	dns-only                  dns        every pod and node resolves every service
//
// Beyond it: pods (they run and are ready), maps (frontends and backends in the
// kernel, joined with readiness), spread (shares by a chi-square test; session
// affinity), source (who is seen as the client) and reverse (what sockets say
// they are connected to). pod-to-hostport and pod-to-world have nothing to test
// here: pods have no host ports, and a lab has no world.
package check

import "time"

// Outcome is how one check ended.
type Outcome string

// The outcomes of a check.
const (
	OK                Outcome = "ok"
	Failed            Outcome = "failed"
	ExpectedFailure   Outcome = "expected-failure"   // the stage's lesson, seen exactly as declared
	UnexpectedSuccess Outcome = "unexpected-success" // the stage declares a failure that did not happen
	Unknown           Outcome = "unknown"            // could not be told
)

// Group is a kind of check.
type Group string

// The groups, in the order of a report.
const (
	Interfaces Group = "interfaces"
	Forwarding Group = "forwarding"
	Routes     Group = "routes"
	FIB        Group = "fib"
	Ping       Group = "ping"
	Tracepath  Group = "tracepath"
)

// RouteGroups lists the groups of "verify routes" in their order.
func RouteGroups() []Group { return []Group{Interfaces, Forwarding, Routes, FIB, Ping, Tracepath} }

// Result is one line of a report.
type Result struct {
	Group Group `json:"group"`
	// Node is where the check was made.
	Node     string  `json:"node"`
	Name     string  `json:"name"`
	Outcome  Outcome `json:"outcome"`
	Expected string  `json:"expected"`
	Seen     string  `json:"seen"`
	// Causes are why it is not as expected: the true causes, which may lie on other nodes.
	Causes []Cause `json:"causes,omitempty"`
}

// Cause is why something fails: what is wrong, on which node, and the command
// that mends it. The same fault has the same words whatever check it fails.
type Cause struct {
	Node   string `json:"node,omitempty"`
	Reason string `json:"reason"`
	Cure   string `json:"cure,omitempty"`
	// Effect is what the fault does to the packet of this one check.
	Effect string `json:"effect,omitempty"`
}

// String is the cause in one sentence.
func (c Cause) String() string {
	s := c.Reason
	if c.Node != "" {
		s = c.Node + ": " + s
	}
	if c.Effect != "" {
		s += "; " + c.Effect
	}
	return s
}

// fault is the cause without what it does to one packet.
func (c Cause) fault() Cause {
	c.Effect = ""
	return c
}

// Report is the outcome of a verification.
type Report struct {
	Lab     string   `json:"lab"`
	Stage   string   `json:"stage,omitempty"`
	Results []Result `json:"results"`
	// Causes are those of all results, each once, the one that explains most first.
	Causes  []CauseCount    `json:"causes,omitempty"`
	Summary map[Outcome]int `json:"summary"`
	// Warnings are about the verification itself, such as a file edited since up.
	Warnings []string      `json:"warnings,omitempty"`
	Took     time.Duration `json:"tookNanoseconds"`
}

// CauseCount is a cause and how many results it explains.
type CauseCount struct {
	Cause
	Results int `json:"results"`
}

// Passed means that every check could be told and is as the stage expects it.
func (r Report) Passed() bool {
	return r.Summary[Failed]+r.Summary[UnexpectedSuccess]+r.Summary[Unknown] == 0
}

// Undecided means that nothing failed but something could not be told.
func (r Report) Undecided() bool {
	return r.Summary[Failed]+r.Summary[UnexpectedSuccess] == 0 && r.Summary[Unknown] > 0
}

// bad says whether an outcome needs a cause.
func (o Outcome) bad() bool { return o != OK && o != ExpectedFailure }
