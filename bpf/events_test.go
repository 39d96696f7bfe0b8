//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// TestEvents walks packets along the datapath, as TestPaths does, and looks at
// what is told of each at the level in force. testdata/events has the levels,
// backends and services, steps, and indented below each step its events, or
// "nothing".
func TestEvents(t *testing.T) {
	const file = "testdata/events"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	onNode(t, testOptions, func(n *node) {
		for prefix, identity := range map[string]uint32{
			"172.20.0.10/32": 1001, "172.20.0.11/32": 1002, "172.20.0.1/32": 1, "172.20.1.0/24": 2001,
		} {
			key, err := Prefix(netip.MustParsePrefix(prefix))
			if err != nil {
				t.Error(err)
				return
			}
			n.put(t, IPCache, key, DatapathRemote{Identity: identity})
		}
		reader, err := ringbuf.NewReader(n.Maps[Events])
		if err != nil {
			t.Error(err)
			return
		}
		defer reader.Close()
		lines := strings.Split(string(text), "\n")
		for i := 0; i < len(lines); i++ {
			line, _, _ := strings.Cut(lines[i], "#")
			words := strings.Fields(line)
			where := fmt.Sprintf("%s:%d", file, i+1)
			if len(words) == 0 || n.arrange(t, words) {
				continue
			}
			var want []string
			for ; i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\t"); i++ {
				want = append(want, strings.TrimSpace(lines[i+1]))
			}
			n.tells(t, where, reader, strings.SplitN(strings.TrimSpace(line), " ", 3), want)
		}
	})
}

// arrange carries out a line that is no step.
func (n *node) arrange(t testing.TB, words []string) bool {
	t.Helper()
	switch words[0] {
	case "backend":
		n.backend(t, words[1:])
	case "service":
		n.service(t, words[1:])
	case "keep":
		n.keep(t, words[1])
	case "level":
		level := map[string]DatapathListen{"nobody": DatapathListenLISTEN_NOBODY, "drops": DatapathListenLISTEN_DROPS,
			"flows": DatapathListenLISTEN_FLOWS, "all": DatapathListenLISTEN_ALL}
		n.put(t, Settings, uint32(0), DatapathSetting{Listen: uint32(level[words[1]])})
	case "handover":
		n.handover(t, words[1])
	default:
		return false
	}
	return true
}

// handover lasts for that many ticks more; 0 is none.
func (n *node) handover(t testing.TB, words string) {
	t.Helper()
	more, err := strconv.Atoi(words)
	if err != nil {
		t.Fatal(err)
	}
	var until uint32
	if more != 0 {
		if until, err = testOptions.Features.Clock().Now(); err != nil {
			t.Fatal(err)
		}
		until += uint32(more)
	}
	n.put(t, Handover, uint32(0), until)
}

// tells runs a step, whatever its verdict, and compares its events.
func (n *node) tells(t testing.TB, where string, reader *ringbuf.Reader, step, want []string) {
	t.Helper()
	f, err := parseFrame(step[2])
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	n.run(t, step[0], step[1], f.bytes(outside[0], outside[1]), 0)
	var got []string
	for {
		reader.SetDeadline(time.Now().Add(2 * time.Millisecond))
		record, err := reader.Read()
		if err != nil {
			break
		}
		var event DatapathEvent
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &event); err != nil {
			t.Errorf("%s: %v", where, err)
			return
		}
		if event.Ifindex != uint32(devices[step[1]]) || event.Hash == 0 || int(event.Captured) != min(96, int(event.Length)) {
			t.Errorf("%s: %+v", where, event)
		}
		got = append(got, told(&event))
	}
	if len(got) == 0 {
		got = []string{"nothing"}
	}
	if g, w := strings.Join(got, "\n\t"), strings.Join(want, "\n\t"); g != w {
		t.Errorf("%s: %s\n\tgot\n\t%s\n\twant\n\t%s", where, strings.Join(step, " "), g, w)
	}
}

// told is an event as testdata/events has it.
func told(e *DatapathEvent) string {
	var b strings.Builder
	if e.Type == uint8(DatapathEventTypeEVENT_DROP) {
		fmt.Fprintf(&b, "drop %d", e.Reason)
	} else {
		fmt.Fprint(&b, map[uint8]string{0: "to-endpoint", 3: "to-stack", 11: "to-network"}[e.Reason])
	}
	fmt.Fprintf(&b, " %s", [...]string{"new", "established", "reply", "related", "unknown"}[e.State])
	if e.Notable != 0 {
		b.WriteString(" notable")
	}
	source, destination := ends(e.Head[:])
	fmt.Fprintf(&b, " endpoint=%d %d->%d orig=%v %v > %v", e.Endpoint, e.SourceIdentity, e.DestinationIdentity,
		Addr(e.OrigAddr), source.Addr(), destination.Addr())
	return b.String()
}
