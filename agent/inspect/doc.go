// Package inspect reads a node's datapath from its pinned maps, and shows it as
// Cilium's maps would hold it: a flow of ours is up to three entries of
// connection tracking there, a frontend with its slots a row of services.
//
// A [Dump] is what was read; all views are methods of it and know nothing of the
// kernel. Nothing here needs a running agent, and nothing writes.
package inspect
