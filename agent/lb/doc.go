//go:build linux

// Package lb is the control of the load balancer on one node: it compiles the
// cluster's services to the contents of the datapath's maps ([Compile], a pure
// function), and brings the kernel's maps there ([Manager]).
//
// # Order of writes
//
// Programs look into the maps while they are written, and the agent may die
// between any two writes. So each write leaves maps in which every frontend
// leads to a backend that is right before the change or after it:
//
//	to add or change: backends, slots that nobody uses, Maglev table,
//	                  affinity_match, frontend (one write)
//	to remove:        frontend, affinity_match and Maglev table; after a grace,
//	                  in which programs that had read them end: slots and ids
//	                  are free again, backends that nobody refers to are zeroed
//
// Of two scopes the internal one is written first and removed last, for the
// external one refers to it.
//
// A write that failed may have had its effect. Of a frontend it is then looked
// up which of two values it has, and until that is known both are taken care
// of; everything else is written again, which does no harm.
//
// # What is remembered
//
// Nothing is on disk. Ids of frontends and backends, ranges of slots and
// backends that were terminating are read from the maps when they are opened.
package lb
