// Package datapath loads the eBPF of package bpf for one node, attaches it and
// keeps it so: to the node's network devices, its pods' devices and its cgroup.
// It fills the maps that say where pods and nodes are, removes flows that are
// over, and hands out what the programs tell. Services are others' matter.
//
// # What is in the pin directory
//
//	maps/<map>                    the maps, by their names in package bpf
//	maps/<map>~<n>                a successor of a map, while it is being replaced
//	programs/<program>@<digest>   the programs, so that a restart loads nothing
//	links/<program>@<device>      TCX links; the device "cgroup" is the node's cgroup
//
// Without TCX there are clsact filters instead of links, named labctl-<program>.
// Whoever removes the directory and these filters has removed the datapath.
//
// # How a datapath is replaced
//
// A map whose entry, size or type is not what the programs want gets a
// successor. No step loses what programs know of connections:
//
//  1. the successor is made and pinned beside the map;
//  2. it is filled from the map, member by member as the types of both say;
//  3. programs that use it are loaded;
//  4. it is filled again with what has changed since;
//  5. all links are turned to the new programs, each in one step. From here to 6
//     a TCP packet in the middle of a connection that is not known is dropped, to
//     come again: it may be one that began at the other programs;
//  6. what was entered meanwhile is copied, where the new programs have nothing;
//  7. the successor's pin is renamed to the map's.
//
// Who dies before 5 leaves successors that no attached program uses: the next
// start throws them away. Who dies later leaves some that are in use: the next
// start goes on with these as the truth and the old map as what is copied.
package datapath
