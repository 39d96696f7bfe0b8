package capture

import (
	"container/heap"
	"time"
)

const (
	// window is how long a packet waits for older ones of other places.
	window = 100 * time.Millisecond
	// maxHeld and maxHeldBytes bound the packets that wait; the oldest goes on
	// when there are more.
	maxHeld      = 1 << 14
	maxHeldBytes = 32 << 20
)

// merger puts packets in the order of time. Each waits for a window, so that one
// that is older may still arrive.
type merger struct {
	window time.Duration
	queue  packetQueue
	bytes  int
	filed  int
}

type held struct {
	packet  Packet
	arrived time.Time
	number  int
}

func (m *merger) add(p Packet, now time.Time) {
	m.filed++
	m.bytes += len(p.Data)
	heap.Push(&m.queue, held{p, now, m.filed})
}

// due is the oldest packet, when it has waited for long enough, or when there
// are too many, or all are to go.
func (m *merger) due(now time.Time, all bool) (Packet, bool) {
	if len(m.queue) == 0 {
		return Packet{}, false
	}
	full := len(m.queue) > maxHeld || m.bytes > maxHeldBytes
	if !all && !full && now.Sub(m.queue[0].arrived) < m.window {
		return Packet{}, false
	}
	p := heap.Pop(&m.queue).(held).packet
	m.bytes -= len(p.Data)
	return p, true
}

// packetQueue is a heap by time, and by arrival where that is the same.
type packetQueue []held

func (q packetQueue) Len() int      { return len(q) }
func (q packetQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packetQueue) Push(x any)   { *q = append(*q, x.(held)) }

func (q packetQueue) Less(i, j int) bool {
	if !q[i].packet.Time.Equal(q[j].packet.Time) {
		return q[i].packet.Time.Before(q[j].packet.Time)
	}
	return q[i].number < q[j].number
}

func (q *packetQueue) Pop() any {
	last := len(*q) - 1
	h := (*q)[last]
	(*q)[last] = held{}
	*q = (*q)[:last]
	return h
}
