// Package parity holds two verifications against each other: of the same lab on
// namespaces and on VMs, say. It is pure.
package parity

import (
	"strings"

	"github.com/native-routing/labctl/labctl/check"
)

// Side is one of the two labs.
type Side struct {
	// Name is what the user called it: a lab or a file.
	Name   string       `json:"name"`
	Report check.Report `json:"report"`
}

// Report is what two labs have in common, and what not.
type Report struct {
	Left  string `json:"left"`
	Right string `json:"right"`
	// Same is how many checks both have, with the same end and the same expectation.
	Same        int          `json:"same"`
	Differences []Difference `json:"differences"`
}

// Difference is one check that is not the same on both sides. A side that lacks
// it is empty.
type Difference struct {
	Group check.Group `json:"group"`
	Name  string      `json:"name"`
	Left  Seen        `json:"left,omitzero"`
	Right Seen        `json:"right,omitzero"`
	// Explained is why the two may differ here, from the providers' documentation;
	// empty where nothing explains it.
	Explained string `json:"explained,omitempty"`
}

// Seen is one side of a difference.
type Seen struct {
	Outcome  check.Outcome `json:"outcome"`
	Expected string        `json:"expected"`
	Seen     string        `json:"seen"`
}

// Unexplained counts the differences that nothing explains.
func (r Report) Unexplained() int {
	n := 0
	for _, d := range r.Differences {
		if d.Explained == "" {
			n++
		}
	}
	return n
}

// Compare holds the checks of one side against those of the other, in the left
// one's order, and those that only the right one has after them.
func Compare(left, right Side) Report {
	r := Report{Left: left.Name, Right: right.Name, Differences: []Difference{}}
	others := map[key]check.Result{}
	uplinks := otherUplinks(left.Report, right.Report)
	for _, result := range right.Report.Results {
		others[keyOf(result)] = result
	}
	for _, result := range left.Report.Results {
		other, both := others[keyOf(result)]
		delete(others, keyOf(result))
		if both && same(result, other) {
			r.Same++
			continue
		}
		d := Difference{Group: result.Group, Name: result.Name, Left: seen(result)}
		if both {
			d.Right = seen(other)
		}
		d.Explained = explain(d, uplinks[result.Node])
		r.Differences = append(r.Differences, d)
	}
	for _, result := range right.Report.Results {
		if _, only := others[keyOf(result)]; only {
			r.Differences = append(r.Differences, Difference{Group: result.Group, Name: result.Name, Right: seen(result)})
		}
	}
	return r
}

type key struct {
	group      check.Group
	node, name string
}

func keyOf(r check.Result) key { return key{r.Group, r.Node, r.Name} }

func seen(r check.Result) Seen { return Seen{r.Outcome, r.Expected, r.Seen} }

// same says whether two results say the same of a lab. What was seen holds
// times and chance, and counts only where it is not as expected.
func same(a, b check.Result) bool {
	return a.Outcome == b.Outcome && a.Expected == b.Expected
}

// otherUplinks are the nodes whose uplink is as it should be on both sides, and
// not the same.
func otherUplinks(left, right check.Report) map[string]bool {
	addresses := map[string]string{}
	for _, result := range left.Results {
		if isUplink(result) {
			addresses[result.Node] = result.Expected
		}
	}
	other := map[string]bool{}
	for _, result := range right.Results {
		if address, both := addresses[result.Node]; both && isUplink(result) && address != result.Expected {
			other[result.Node] = true
		}
	}
	return other
}

func isUplink(r check.Result) bool {
	return r.Group == check.Interfaces && r.Outcome == check.OK && strings.HasSuffix(r.Name, " "+uplink)
}

const uplink = "eth0"

// explain knows why providers may differ. Both sides must have come to the same
// end: a check that fails on one of them is never explained away.
func explain(d Difference, otherUplink bool) string {
	if d.Left.Outcome != d.Right.Outcome {
		return ""
	}
	switch {
	case d.Group == check.Interfaces && strings.HasSuffix(d.Name, " "+uplink),
		d.Group == check.FIB && (onUplink(d.Left.Expected) && onUplink(d.Right.Expected)):
		return "the uplink is the provider's: libvirt gives each VM an address of its own, VirtualBox the same to all"
	case d.Group == check.Routes && d.Left.Outcome == check.OK && otherUplink:
		// Each table holds what the topology and this uplink ask for, and no more.
		return "the uplink is the provider's, and so are the routes that come with it"
	}
	return ""
}

func onUplink(expected string) bool { return strings.Contains(expected, "dev "+uplink) }
