//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// waiting is how many events wait for a subscriber before it loses some.
const waiting = 1024

// The levels of events, each with those before it.
const (
	LevelDrops = "drops"
	LevelFlows = "flows" // drops, the first packet each way of flows, and the last ones
	LevelAll   = "all"
)

// ParseLevel turns a level's name into what the programs know it by.
func ParseLevel(name string) (bpf.DatapathListen, error) {
	switch name {
	case LevelDrops:
		return bpf.DatapathListenLISTEN_DROPS, nil
	case LevelFlows, "":
		return bpf.DatapathListenLISTEN_FLOWS, nil
	case LevelAll:
		return bpf.DatapathListenLISTEN_ALL, nil
	default:
		return 0, fmt.Errorf("level %q is none of %s, %s and %s", name, LevelDrops, LevelFlows, LevelAll)
	}
}

// hub hands events to those who asked. The programs write none, and nothing
// reads the ring buffer, while nobody asks.
type hub struct {
	report func(error)
	device func(index int) string

	mu          sync.Mutex
	maps        Maps
	setting     bpf.DatapathSetting // as it was written last
	subscribers map[*subscriber]bool
	reader      *ringbuf.Reader
}

type subscriber struct {
	level  bpf.DatapathListen
	events chan api.MonitorEvent
	lost   uint64
}

func newHub(report func(error), device func(int) string) *hub {
	return &hub{report: report, device: device, subscribers: make(map[*subscriber]bool)}
}

// use turns to the maps of another load; the zero Maps to none.
func (h *hub) use(maps Maps) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop()
	if h.maps.Loaded() && len(h.subscribers) > 0 { // its programs may stay attached
		if err := h.listen(0); err != nil {
			h.report(err)
		}
	}
	h.maps = maps
	h.adjust()
}

// subscribe hands out events until ctx ends, which closes the channel. Who is
// slow loses events, and is told how many.
func (h *hub) subscribe(ctx context.Context, level bpf.DatapathListen) <-chan api.MonitorEvent {
	s := &subscriber{level: level, events: make(chan api.MonitorEvent, waiting)}
	h.mu.Lock()
	h.subscribers[s] = true
	h.adjust()
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subscribers, s)
		close(s.events)
		h.adjust()
	})
	return s.events
}

// adjust makes the programs write what the most curious subscriber wants, and
// reads it, or not. h.mu is held.
func (h *hub) adjust() {
	var level bpf.DatapathListen
	for s := range h.subscribers {
		level = max(level, s.level)
	}
	if !h.maps.Loaded() {
		return
	}
	if level > 0 && h.reader == nil {
		reader, err := ringbuf.NewReader(h.maps.Map(bpf.Events))
		if err != nil {
			h.report(fmt.Errorf("read events: %w", err))
			return
		}
		h.reader = reader
		go h.read(reader)
	}
	if err := h.listen(level); err != nil {
		h.report(err)
	}
	if level == 0 {
		h.stop()
	}
}

// listen tells the programs what to write. h.mu is held.
func (h *hub) listen(level bpf.DatapathListen) error {
	h.setting.Listen = uint32(level)
	if err := h.maps.Map(bpf.Settings).Put(uint32(0), h.setting); err != nil {
		return fmt.Errorf("say which events are wanted: %w", err)
	}
	return nil
}

// carry tells the programs by which port nodes carry packets; nil for none. It is
// the hub's to tell, for it is the one who writes the settings.
func (h *hub) carry(overlay *api.Overlay) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := h.setting
	next.TunnelPort = 0
	if overlay != nil {
		next.TunnelPort = bpf.Port(overlay.Port)
	}
	if next == h.setting {
		return nil
	}
	if err := h.maps.Map(bpf.Settings).Put(uint32(0), next); err != nil {
		return fmt.Errorf("say which packets carry others: %w", err)
	}
	h.setting = next
	return nil
}

// stop ends reading. h.mu is held.
func (h *hub) stop() {
	if h.reader != nil {
		_ = h.reader.Close()
		h.reader = nil
	}
}

func (h *hub) read(reader *ringbuf.Reader) {
	var record ringbuf.Record
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			h.report(fmt.Errorf("read events: %w", err))
			return
		}
		if len(record.RawSample) < int(unsafe.Sizeof(bpf.DatapathEvent{})) {
			continue
		}
		event := decodeEvent(record.RawSample)
		h.deliver(&event)
	}
}

func decodeEvent(raw []byte) (event bpf.DatapathEvent) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&event)), unsafe.Sizeof(event)), raw)
	return event
}

func (h *hub) deliver(event *bpf.DatapathEvent) {
	level := levelOf(event)
	told := h.describe(event)
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		if s.level < level {
			continue
		}
		if s.lost > 0 {
			select {
			case s.events <- api.MonitorEvent{Time: told.Time, Type: "lost", Lost: s.lost}:
				s.lost = 0
			default:
				s.lost++
				continue
			}
		}
		select {
		case s.events <- told:
		default:
			s.lost++
		}
	}
}

// levelOf is the lowest level that an event is told at (finish in events.h):
// the programs write for the highest that anybody wants.
func levelOf(event *bpf.DatapathEvent) bpf.DatapathListen {
	if event.Type == uint8(bpf.DatapathEventTypeEVENT_DROP) {
		return bpf.DatapathListenLISTEN_DROPS
	}
	if event.Notable != 0 {
		return bpf.DatapathListenLISTEN_FLOWS
	}
	return bpf.DatapathListenLISTEN_ALL
}

func (h *hub) describe(event *bpf.DatapathEvent) api.MonitorEvent {
	told := api.MonitorEvent{
		Time: wallTime(event.Time), Type: "trace",
		State: StateText(bpf.DatapathFlowState(event.State)),
		Index: int(event.Ifindex), Device: h.device(int(event.Ifindex)),
		Endpoint: uint32(event.Endpoint), Hash: event.Hash,
		SourceIdentity: event.SourceIdentity, DestinationIdentity: event.DestinationIdentity,
		OrigSource: bpf.Addr(event.OrigAddr), Length: int(event.Length),
		Packet: append([]byte(nil), event.Head[:min(int(event.Captured), len(event.Head))]...),
	}
	if event.Type == uint8(bpf.DatapathEventTypeEVENT_DROP) {
		told.Type, told.Reason = "drop", int(event.Reason)
		told.ReasonText = ReasonText(bpf.DatapathReason(event.Reason))
	} else {
		told.Point = PointText(bpf.DatapathPoint(event.Reason))
	}
	return told
}

// wallTime turns a stamp of CLOCK_MONOTONIC into the time of day.
func wallTime(stamp uint64) time.Time {
	var monotonic unix.Timespec
	now := time.Now()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &monotonic); err != nil {
		return now
	}
	return now.Add(time.Duration(int64(stamp) - monotonic.Nano()))
}
