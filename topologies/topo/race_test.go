//go:build race

package topo

// slowness is how much longer everything takes under the race detector.
const slowness = 10
