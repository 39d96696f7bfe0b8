package graph

import (
	"cmp"
	"slices"
)

// part is a piece of the lab whose networks are joined by nodes. Networks stand
// in ranks from left to right, so that a node joins only networks of its own
// rank and the next; nodes stand in columns between them. Column i is to the
// left of rank i, and the last column to the right of the last rank.
type part struct {
	ranks   [][]int
	columns [][]int
}

// arrangement is the order of a whole lab.
type arrangement struct {
	parts []part
	// loose are the nodes that are on no network.
	loose []int
	// rank of each network in its part, and column of each node in its part.
	rank, column []int
}

// leftOf reports whether a node stands to the left of a network it is on.
func (a *arrangement) leftOf(node, network int) bool {
	return a.column[node] <= a.rank[network]
}

func arrange(s *scene) *arrangement {
	a := &arrangement{rank: make([]int, len(s.segments)), column: make([]int, len(s.members))}
	on := s.membersOf()
	placed := make([]bool, len(s.segments))
	partOf := make([]int, len(s.segments))
	for first := range s.segments {
		if placed[first] {
			continue
		}
		ranks := s.bestRanks(first, on)
		for r, networks := range ranks {
			for _, n := range networks {
				placed[n] = true
				partOf[n] = len(a.parts)
				a.rank[n] = r
			}
		}
		a.parts = append(a.parts, part{ranks: ranks, columns: make([][]int, len(ranks)+1)})
	}
	a.placeMembers(s, partOf)
	for i := range a.parts {
		a.parts[i].untangle(s, on)
	}
	return a
}

// membersOf returns, for each network, the nodes on it.
func (s *scene) membersOf() [][]int {
	members := make([][]int, len(s.segments))
	for i, m := range s.members {
		for _, n := range m.networks {
			members[n] = append(members[n], i)
		}
	}
	return members
}

// bestRanks returns the ranks of the part that first is in. They begin at its
// end where first is amid it: a chain is then drawn from end to end, not folded.
func (s *scene) bestRanks(first int, on [][]int) [][]int {
	ranks := s.ranksFrom(first, on)
	end := ranks[len(ranks)-1][0]
	if other := s.ranksFrom(end, on); len(other) > len(ranks) {
		return other
	}
	return ranks
}

// ranksFrom returns the networks by their distance from start.
func (s *scene) ranksFrom(start int, on [][]int) [][]int {
	seen := map[int]bool{start: true}
	crossed := map[int]bool{}
	ranks := [][]int{{start}}
	for {
		var next []int
		for _, n := range ranks[len(ranks)-1] {
			for _, node := range on[n] {
				if crossed[node] {
					continue
				}
				crossed[node] = true
				for _, to := range s.members[node].networks {
					if !seen[to] {
						seen[to] = true
						next = append(next, to)
					}
				}
			}
		}
		if len(next) == 0 {
			return ranks
		}
		slices.Sort(next)
		ranks = append(ranks, next)
	}
}

// placeMembers puts those that join ranks between them, and then the others on
// the outside, or where there is more room.
func (a *arrangement) placeMembers(s *scene, partOf []int) {
	var leaves []int
	for i := range s.members {
		joined := s.members[i].networks
		if len(joined) == 0 {
			a.loose = append(a.loose, i)
			continue
		}
		low, high := a.rank[joined[0]], a.rank[joined[0]]
		for _, n := range joined {
			low, high = min(low, a.rank[n]), max(high, a.rank[n])
		}
		if low == high {
			leaves = append(leaves, i)
			continue
		}
		a.put(i, &a.parts[partOf[joined[0]]], high)
	}
	for n, nodes := range groupByNetwork(s, leaves) {
		a.placeLeaves(s, &a.parts[partOf[n]], a.rank[n], nodes)
	}
	for _, p := range a.parts {
		for _, column := range p.columns {
			slices.Sort(column)
		}
	}
}

// groupByNetwork returns, for each network, those of nodes that are first on it.
func groupByNetwork(s *scene, nodes []int) [][]int {
	groups := make([][]int, len(s.segments))
	for _, i := range nodes {
		n := s.members[i].networks[0]
		groups[n] = append(groups[n], i)
	}
	return groups
}

// placeLeaves puts the nodes of one network on the outside of the part. Where a
// rank has no outside or two, few nodes stay together on the emptier side, and
// many stand on both.
func (a *arrangement) placeLeaves(s *scene, p *part, rank int, nodes []int) {
	const few = 4
	left, right := rank, rank+1
	last := len(p.ranks) - 1
	split := len(nodes) // how many go to the left
	switch {
	case rank == 0 && last > 0:
	case rank == last && last > 0:
		split = 0
	case len(nodes) > few:
		split = (len(nodes) + 1) / 2
	case p.rows(s, right) < p.rows(s, left):
		split = 0
	}
	for i, node := range nodes {
		if i < split {
			a.put(node, p, left)
		} else {
			a.put(node, p, right)
		}
	}
}

func (a *arrangement) put(node int, p *part, column int) {
	a.column[node] = column
	p.columns[column] = append(p.columns[column], node)
}

// rows measures how full a column is.
func (p *part) rows(s *scene, column int) int {
	n := 0
	for _, i := range p.columns[column] {
		n += 2 + len(s.members[i].rows)
	}
	return n
}

// untangle orders each column and rank by the middle of what it is joined with,
// so that fewer wires cross. Equals keep the file's order.
func (p *part) untangle(s *scene, on [][]int) {
	const sweeps = 4
	for range sweeps {
		at := positions(p.ranks)
		for _, column := range p.columns {
			sortByMiddle(column, func(node int) []int { return s.members[node].networks }, at)
		}
		at = positions(p.columns)
		for _, rank := range p.ranks {
			sortByMiddle(rank, func(n int) []int { return on[n] }, at)
		}
	}
}

// positions returns where each item stands in its list, from 0 to 1.
func positions(lists [][]int) map[int]float64 {
	at := map[int]float64{}
	for _, list := range lists {
		for i, item := range list {
			at[item] = (float64(i) + 0.5) / float64(len(list))
		}
	}
	return at
}

func sortByMiddle(items []int, joined func(int) []int, at map[int]float64) {
	middle := map[int]float64{}
	for _, item := range items {
		middle[item] = 0.5
		if others := joined(item); len(others) > 0 {
			sum := 0.0
			for _, o := range others {
				sum += at[o]
			}
			middle[item] = sum / float64(len(others))
		}
	}
	slices.SortStableFunc(items, func(x, y int) int { return cmp.Compare(middle[x], middle[y]) })
}
