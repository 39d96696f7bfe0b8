//go:build linux

package probe

import (
	"container/heap"
	"time"
)

// event is something to do at a time: an action of the prober that filed it,
// for one of its targets and one step of that target.
type event struct {
	at     time.Time
	action action
	target int
	step   int
	// serial tells an event that was overtaken from one that still counts.
	serial int

	filed int
}

type action uint8

const (
	actionSend   action = iota // send the step's probe
	actionExpire               // the step's probe was waited for long enough
	actionSpread               // the step is slow to answer: probe those behind it too
)

// agenda hands out events in the order of their time, and those of the same
// time in the order they were filed.
type agenda struct {
	queue eventQueue
	filed int
}

func (a *agenda) file(e event) {
	a.filed++
	e.filed = a.filed
	heap.Push(&a.queue, e)
}

// due takes the first event out if its time has come.
func (a *agenda) due(now time.Time) (event, bool) {
	if len(a.queue) == 0 || a.queue[0].at.After(now) {
		return event{}, false
	}
	return heap.Pop(&a.queue).(event), true
}

// next is when the first event is due.
func (a *agenda) next() (time.Time, bool) {
	if len(a.queue) == 0 {
		return time.Time{}, false
	}
	return a.queue[0].at, true
}

type eventQueue []event

func (q eventQueue) Len() int      { return len(q) }
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }

func (q eventQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].filed < q[j].filed
}

func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	*q = (*q)[:last]
	return e
}
