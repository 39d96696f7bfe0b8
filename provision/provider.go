// Package provision says what a lab can stand on: a provider makes nodes and
// links real, and a node is where commands run.
package provision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"

	"github.com/native-routing/labctl/topologies/topo"
)

// Errors to match with errors.Is.
var (
	// ErrNotFound is a node that does not exist; up makes it.
	ErrNotFound = errors.New("no such node")
	// ErrPermission is a missing right, such as root.
	ErrPermission = errors.New("permission denied")
	// ErrUnsupported is a provider that this operating system cannot carry.
	ErrUnsupported = errors.New("not supported on this system")
)

// Provider makes the nodes and links of labs. Every method may be repeated and
// may be cut short at any moment: each looks, compares and acts. Methods are
// safe for concurrent use.
type Provider interface {
	Name() string
	// Preflight looks at what this machine has, and changes nothing.
	Preflight(ctx context.Context, t *topo.Topology) []Finding
	// EnsureNode makes one node of t, with its files (hosts, resolv.conf) as t says.
	EnsureNode(ctx context.Context, t *topo.Topology, node string) ([]Change, error)
	// EnsureLinks gives every node its interfaces, addresses and static routes,
	// and removes those of its own that t does not have.
	EnsureLinks(ctx context.Context, t *topo.Topology) ([]Change, error)
	// OpenNode never creates: ErrNotFound where the node is not there.
	OpenNode(ctx context.Context, lab, node string) (Node, error)
	// Labs names the labs of which anything bears the mark on this machine, sorted.
	Labs(ctx context.Context) ([]string, error)
	// Observe finds all that bears the lab's mark.
	Observe(ctx context.Context, lab string) (Observation, error)
	// Destroy removes the named nodes; with none named, everything that bears
	// the lab's mark. What is absent is no error.
	Destroy(ctx context.Context, lab string, nodes ...string) ([]Change, error)
}

// Powered is a provider whose nodes can be switched off and on again without
// losing what is on their disks.
type Powered interface {
	// Halt shuts the named nodes down; all of the lab's where none is named. A
	// node that is down already is no error.
	Halt(ctx context.Context, lab string, nodes ...string) ([]Change, error)
	// Start boots the named nodes of t; all where none is named.
	Start(ctx context.Context, t *topo.Topology, nodes ...string) ([]Change, error)
}

// SSHReachable is a provider whose nodes ssh(1) reaches.
type SSHReachable interface {
	// SSHHosts says how, for every node of the lab that runs, in the order of the topology.
	SSHHosts(ctx context.Context, lab string) ([]SSHHost, error)
}

// SSHHost is how ssh(1) reaches a node, in the words of ssh_config(5).
type SSHHost struct {
	Node         string `json:"node"`
	HostName     string `json:"hostName"`
	Port         int    `json:"port"`
	User         string `json:"user"`
	IdentityFile string `json:"identityFile,omitempty"` // empty: the SSH agent has the key
	// KnownHosts is the file with the node's pinned key, under the alias Node.
	KnownHosts string `json:"knownHosts"`
}

// KernelSharer is a provider whose nodes run on this machine's own kernel.
type KernelSharer interface {
	// KernelRelease is what uname -r prints; empty where it is not known.
	KernelRelease() string
}

// NodeLinker is a provider that can do for a few nodes what EnsureLinks does for
// all, and leave the others as they are.
type NodeLinker interface {
	EnsureNodeLinks(ctx context.Context, t *topo.Topology, nodes ...string) ([]Change, error)
}

// Borrower is a provider whose nodes are somebody's own machines: what the lab
// did not make on them is not the lab's to take away.
type Borrower interface{ Borrowed() }

// Severity says whether a finding stops the lab.
type Severity string

// The severities of a finding.
const (
	Fine    Severity = "ok"
	Warning Severity = "warning" // the lab works, with the difference that the finding names
	Missing Severity = "missing" // the lab cannot work
)

// Finding is one line of doctor.
type Finding struct {
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"`
	Detail   string   `json:"detail,omitempty"`
	// Cure is the exact command that mends it.
	Cure string `json:"cure,omitempty"`
	// Err is the class of what is missing, for errors.Is; nil otherwise.
	Err error `json:"-"`
}

// Verb is what was done to an object.
type Verb string

// The verbs of a change.
const (
	Created Verb = "created"
	Changed Verb = "changed"
	Removed Verb = "removed"
	Started Verb = "started"
	Stopped Verb = "stopped"
)

// Change is one thing that was done. No changes means that all was as it should be.
type Change struct {
	Verb Verb   `json:"verb"`
	Node string `json:"node,omitempty"`
	// Object is what was changed, in the field's words: "namespace", "eth1",
	// "route 10.10.0.0/16 via 192.168.10.200".
	Object string `json:"object"`
	// Detail says from what to what, where that helps.
	Detail string `json:"detail,omitempty"`
}

func (c Change) String() string {
	s := string(c.Verb) + " " + c.Object
	if c.Node != "" {
		s = c.Node + ": " + s
	}
	if c.Detail != "" {
		s += " (" + c.Detail + ")"
	}
	return s
}

// NodeState is how a node stands.
type NodeState string

// The states of a node.
const (
	NodeRunning NodeState = "running"
	NodeStopped NodeState = "stopped"
	NodeBroken  NodeState = "broken" // half made or half removed; up mends it
)

// Observation is what there is of a lab.
type Observation struct {
	Nodes []ObservedNode `json:"nodes"`
	// Objects is everything else that bears the mark: bridges, processes, mounts, files.
	Objects []string `json:"objects,omitempty"`
	// Remarks are differences that this machine forces, such as ifb for dummy.
	Remarks []string `json:"remarks,omitempty"`
}

// Empty means that nothing of the lab is left.
func (o Observation) Empty() bool { return len(o.Nodes) == 0 && len(o.Objects) == 0 }

// ObservedNode is a node that exists in some form.
type ObservedNode struct {
	Name   string    `json:"name"`
	State  NodeState `json:"state"`
	Detail string    `json:"detail,omitempty"`
}

// Node is one machine of a running lab. Its methods are safe for concurrent use.
type Node interface {
	Name() string
	// Run waits for the command. A command that ran and did not exit with 0 is an *ExitError.
	Run(ctx context.Context, cmd Command) error
	// Put writes a file atomically, where its content or mode differs, and says whether it did.
	// A relative path lies in the node's own directory, which goes away with the node.
	Put(ctx context.Context, file File) (changed bool, err error)
	// Dir is the node's own directory, as processes on the node see it.
	Dir() string
	// RunDir is where the node's processes keep sockets and locks; its path is
	// short enough for a unix socket, and it is gone after a reboot.
	RunDir() string
	// BPFDir is a directory in a BPF file system, for the node's pins: it is
	// there, and it goes away with the node.
	BPFDir() string
	// Cgroup is the node's own directory in a cgroup2 hierarchy. Every process
	// of the node is in it or below, and it goes away with the node.
	Cgroup() string
	// EnsureService keeps one process running: starts it where it is not, and
	// restarts it where the executable or the arguments differ.
	EnsureService(ctx context.Context, service Service) ([]Change, error)
	// Shell is the command that gives a person a shell there, with the node's prompt.
	Shell() Command
	// Arch is the node's architecture, in Go's words.
	Arch() string
	// Uplink is the interface by which the node reaches the world, as it stands now.
	Uplink(ctx context.Context) (topo.Uplink, error)
	// Dial connects from the node: network is unix or tcp.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}

// Command is what to run on a node. No shell is between.
type Command struct {
	Argv   []string
	Env    []string // added to the node's own
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Interactive hands the caller's terminal over, with job control and signals.
	Interactive bool
}

// File is a file to put on a node.
type File struct {
	Path    string
	Mode    fs.FileMode
	Content []byte
	// SHA256 is that of Content, in hex, from a caller who knows it; a provider
	// works it out where it is empty and needed.
	SHA256 string
}

// Service is a process that outlives labctl.
type Service struct {
	Name string
	// Argv[0] may be relative to the node's own directory.
	Argv []string
	// Restart, where it is not empty, is why the service is started anew even
	// if it runs: "it does not answer".
	Restart string
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Argv []string
	// Code is the exit status; 128 plus the signal's number where one ended it, as shells have it.
	Code   int
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return fmt.Sprintf("%s: ended by signal %s", e.Argv[0], e.Signal)
	}
	return fmt.Sprintf("%s: exit status %d", e.Argv[0], e.Code)
}
