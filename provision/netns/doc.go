// Package netns is the provider whose nodes are network namespaces of one Linux
// machine. A network of the lab is a bridge in a namespace of the lab's own (its
// fabric); a node's interface is a veth pair that ends in a port there. Nothing
// in the machine's own namespace changes.
//
// The names of all that is made, for the lab "study" and its node "router":
//
//	/run/labctl/study/ns/router.net       the network namespace (a mount)
//	/run/labctl/study/ns/router.uts       the namespace of its hostname (a mount)
//	/run/labctl/study/ns/@fabric.net      the bridges (a mount)
//	/run/labctl/study/nodes/router/       sockets and locks of its services
//	/run/labctl/study/bpf/router/         its pins; bpf is a BPF file system (a mount)
//	/run/netns/labctl.study.router        symlink, for ip netns; labctl.study is the fabric
//	/var/lib/labctl/study/nodes/router/   the node's own directory
//	/var/lib/labctl/study/bin/            executables, shared by hard links
//	/var/lib/labctl/study/etc/            hosts and resolv.conf of nodes without pods
//	/var/lib/labctl/study/etc-pods/       and of nodes with pods
//	/var/lib/labctl/study/rt_protos       names of route protocols on every node
//	/var/lib/labctl/study/bashrc          the prompt of every node
//	/etc/netns/labctl.study.router        symlink to the lab's etc/ or etc-pods/, for ip netns exec
//	labctl.study/router                   its cgroup, in the machine's cgroup2 mount
//
// A machine without a cgroup2 mount gets one on /run/labctl/@cgroup2, which goes
// with the last lab.
package netns

// Options are where the provider keeps its files. The zero value is the usual place.
type Options struct {
	// RunDir holds mounts, sockets and locks; /run/labctl where it is empty. It
	// should be short: a socket's path holds 107 bytes.
	RunDir string
	// DataDir holds the nodes' directories; /var/lib/labctl where it is empty.
	DataDir string
	// Parallel bounds the nodes that are worked on at once; 0 chooses by the
	// number of processors.
	Parallel int
}

// Name is what this provider is called on the command line.
const Name = "netns"
