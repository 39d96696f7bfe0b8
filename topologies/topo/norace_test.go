//go:build !race

package topo

// slowness is how much longer everything takes than it should: not at all.
const slowness = 1
