package check

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// manner is how hard a lab is pressed: all its nodes may be one machine.
type manner struct {
	lanes  int // calls under way, to all nodes together
	atOnce int // requests of one call under way
	// timeout of each request, in place of the row's own where it is longer.
	timeout time.Duration
}

var (
	// brisk keeps two processors busy and no queue of connections waiting.
	brisk = manner{lanes: 16, atOnce: 8}
	// gentle is for what a busy machine may have lost.
	gentle = manner{lanes: 8, atOnce: 2, timeout: time.Second}
)

// manner is how the first requests are sent: where nodes are slow, more at once
// only queue up.
func (s *services) manner() manner {
	if s.patience > 1 {
		return gentle
	}
	return brisk
}

const (
	// callRequests is the most requests of one call, so that each is soon over.
	callRequests = 64
	// callEchoes is the same for echoes.
	callEchoes = 64
	// margin is what a call may take beyond what was asked of it.
	margin = 5 * time.Second
	// firstRepeats of a node are repeated before the rest.
	firstRepeats = 16
	// rowPatience is how much waiting for lost requests one row is worth, were
	// they sent one by one; all rows share lostPatience.
	rowPatience  = 16 * time.Second
	lostPatience = 1200 * time.Second
)

// fetchLimit is the most that a call may take: no more is under way at once than
// there are sockets, so the longest of its rows decides.
func fetchLimit(targets []api.FetchTarget) time.Duration {
	longest := time.Duration(0)
	for _, t := range targets {
		parallel := max(t.Parallel, 1)
		rounds := (t.Count + parallel - 1) / parallel
		longest = max(longest, t.Timeout+time.Duration(rounds)*(t.Timeout+api.AnswerTime))
	}
	return longest + margin
}

// pingLimit is the most that a call may take.
func pingLimit(targets []api.PingTarget) time.Duration {
	longest := time.Duration(0)
	for _, t := range targets {
		longest = max(longest, time.Duration(t.Count-1)*t.Interval+2*t.Timeout) // sending may wait for as long
	}
	return longest + margin
}

// traceLimit is the most that a call may take.
func traceLimit(targets []api.TraceTarget) time.Duration {
	longest := time.Duration(0)
	for _, t := range targets {
		longest = max(longest, time.Duration(t.MaxHops*max(t.Tries, 1))*t.Timeout)
	}
	return longest + margin
}

// piece is a part of a row, and which of its attempts it stands for.
type piece struct {
	row      int
	attempts []int
}

// errand is one call to one node.
type errand struct {
	node    string
	targets []api.FetchTarget
	pieces  []piece
	load    int // requests under way at once
}

func (e *errand) fits(t api.FetchTarget) bool {
	requests := t.Count
	for _, have := range e.targets {
		requests += have.Count
	}
	return e.load+t.Parallel <= brisk.atOnce && requests <= callRequests
}

// errands cut rows into calls of bounded cost, those of all nodes in turn. Where
// losses are likely, several lanes share the waits of one row.
func (s *services) errands(todo []piece, how manner) []errand {
	byNode := map[string][]errand{}
	longest := 0
	for _, p := range todo {
		node := s.rows[p.row].asker.node
		most := callRequests
		if s.lossy[p.row] || how.atOnce < brisk.atOnce {
			most = 2 * how.atOnce
		}
		for part := range slices.Chunk(p.attempts, most) {
			t := s.rows[p.row].target
			t.Count, t.Parallel = len(part), min(len(part), how.atOnce)
			if !s.lossy[p.row] { // there one loss more is no failure, and each is waited for in full
				t.Timeout = max(t.Timeout, s.patient(how.timeout))
			}
			list := byNode[node]
			if len(list) == 0 || !list[len(list)-1].fits(t) || how.atOnce < brisk.atOnce && len(list[len(list)-1].targets) >= how.atOnce {
				list = append(list, errand{node: node})
			}
			last := &list[len(list)-1]
			last.targets, last.pieces, last.load = append(last.targets, t), append(last.pieces, piece{p.row, part}), last.load+t.Parallel
			byNode[node] = list
			longest = max(longest, len(list))
		}
	}
	var all []errand
	for i := range longest {
		for _, n := range s.healthy.Nodes {
			if list := byNode[n.Name]; i < len(list) {
				all = append(all, list[i])
			}
		}
	}
	return all
}

// ask sends the requests and puts the answers where they belong. A node that
// fails a call is asked nothing more.
func (s *services) ask(ctx context.Context, prober ServiceProber, todo []piece, how manner) {
	todo = slices.DeleteFunc(slices.Clone(todo), func(p piece) bool {
		node := s.rows[p.row].asker.node
		return !s.selection.node(node) || s.trouble(node) != nil
	})
	errands := make(chan errand)
	var lanes sync.WaitGroup
	for range how.lanes {
		lanes.Go(func() {
			for e := range errands {
				if s.probing(e.node) {
					results, err := prober.Fetch(ctx, e.node, e.targets)
					s.answer(e, results, err)
				}
			}
		})
	}
	for _, e := range s.errands(todo, how) {
		errands <- e
	}
	close(errands)
	lanes.Wait()
}

// probing says whether a node has carried out all that it was asked so far.
func (s *services) probing(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probeErrs[node] == nil
}

// answer records what came of a call. A row of which a part is not known is not
// known.
func (s *services) answer(e errand, results []api.FetchResult, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.probeErrs[e.node] = err
		return
	}
	for i, p := range e.pieces {
		got := s.answers[p.row]
		if got.Attempts == nil {
			got.Attempts = make([]api.FetchAttempt, s.rows[p.row].target.Count)
		}
		if results[i].Resolved.IsValid() {
			got.Resolved = results[i].Resolved
		}
		for k, at := range p.attempts[:min(len(p.attempts), len(results[i].Attempts))] {
			got.Attempts[at] = results[i].Attempts[k]
		}
		s.answers[p.row] = got
		s.heard[p.row] += len(p.attempts)
	}
}

// forgetHalves drops the rows of which a part was not answered.
func (s *services) forgetHalves() {
	for row := range s.answers {
		if s.heard[row] < s.rows[row].target.Count {
			delete(s.answers, row)
		}
	}
}

// whole are all attempts of rows.
func (s *services) whole(rows []int) []piece {
	pieces := make([]piece, len(rows))
	for i, row := range rows {
		pieces[i] = piece{row, make([]int, s.rows[row].target.Count)}
		for k := range pieces[i].attempts {
			pieces[i].attempts[k] = k
		}
	}
	return pieces
}

// overdue says whether a request may have been lost to a busy machine alone: it
// was not connected in time, or, where nodes are slow, not answered. Of one by
// name only the name counts.
func (s *services) overdue(t api.FetchTarget, a api.FetchAttempt) bool {
	if t.Name != "" {
		return a.Error == errorResolve
	}
	return a.Error == errorTimeout && (!a.Peer.IsValid() || t.Protocol == "dns" || s.patience > 1)
}

// repeat asks once more what was not answered in time, of the rows of which
// nothing else tells why. Where one of a node's first fails again, it is not the
// machine that is busy, and the rest stay as they are.
func (s *services) repeat(ctx context.Context, prober ServiceProber, rows []int, explained func(row int) bool) {
	first, rest := []piece{}, map[string][]piece{}
	count := map[string]int{}
	for _, row := range rows {
		var late []int
		for i, a := range s.answers[row].Attempts {
			if s.overdue(s.rows[row].target, a) {
				late = append(late, i)
			}
		}
		if len(late) == 0 || explained(row) {
			continue
		}
		node := s.rows[row].asker.node
		now := min(max(firstRepeats-count[node], 0), len(late))
		count[node] += now
		if now > 0 {
			first = append(first, piece{row, late[:now]})
		}
		if now < len(late) {
			rest[node] = append(rest[node], piece{row, late[now:]})
		}
	}
	s.ask(ctx, prober, first, gentle)
	for _, p := range first {
		node, got := s.rows[p.row].asker.node, s.answers[p.row].Attempts
		if slices.ContainsFunc(p.attempts, func(i int) bool { return i >= len(got) || s.overdue(s.rows[p.row].target, got[i]) }) {
			delete(rest, node)
		}
	}
	var again []piece
	for _, n := range s.healthy.Nodes {
		again = append(again, rest[n.Name]...)
	}
	s.ask(ctx, prober, again, gentle)
}

// sendEchoes sends a node's echoes, some at a time.
func (s *services) sendEchoes(ctx context.Context, prober ServiceProber, node string) {
	targets, flows := s.pings(node)
	for i := 0; i < len(targets); i += callEchoes {
		end := min(i+callEchoes, len(targets))
		results, err := prober.Ping(ctx, node, targets[i:end])
		record(s.verification, node, s.echoes, flows[i:end], results, err)
		if err != nil {
			return
		}
	}
}

// least is how many requests a row with so many backends is worth, however many
// are lost: what tells their spread, where that is not many.
func least(backends int) int {
	if even := leastShare * backends; even <= fewEven {
		return max(even, fewRequests)
	}
	return fewRequests
}

// spare shortens the rows of which many requests will be lost, as the backends'
// own addresses have told: each is waited for in full.
func (s *services) spare() {
	type slow struct {
		row, lost, all int
		cost           time.Duration
	}
	var rows []slow
	note := func(b balanced) {
		w := slow{row: b.row, all: len(b.shares)}
		for _, p := range b.shares {
			if p.lost() {
				w.lost++
				w.cost = max(w.cost, p.took, time.Millisecond)
			}
		}
		if w.lost > 0 {
			rows = append(rows, w)
		}
	}
	for _, c := range s.balanced {
		note(s.balancedOf(c))
	}
	for _, c := range s.ports {
		note(s.balancedPort(c))
	}
	patience := min(rowPatience, lostPatience/time.Duration(max(len(rows), 1)))
	for _, w := range rows {
		t := &s.rows[w.row].target
		s.lossy[w.row] = true
		if enough := int(patience/w.cost) * w.all / w.lost; enough < t.Count {
			t.Count = max(min(least(w.all), t.Count), enough)
			s.short[w.row] = true
		}
	}
}
