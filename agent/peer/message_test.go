//go:build linux

package peer

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWire shows one datagram as it is on the wire.
func TestWire(t *testing.T) {
	entries := []entry{
		{id{"default/webpod-1", 0x01020304}, Ready},
		{id{"default/webpod-22", 5}, NotReady},
		{id{"tools/x", 6}, Terminating},
	}
	m := message{from: "k8s-w0", to: "k8s-ctr", start: 1, sequence: 2, heard: 3, digest: 4, version: 5, part: 0, parts: 1}
	b := m.seal(split(entries, maxPayload)[0], testKey)
	const want = `00000000  4c 43 50 31 00 00 00 00  00 00 00 01 00 00 00 00  |LCP1............|
00000010  00 00 00 02 00 00 00 00  00 00 00 03 00 00 00 00  |................|
00000020  00 00 00 04 00 00 00 00  00 00 00 05 00 00 00 01  |................|
00000030  06 6b 38 73 2d 77 30 07  6b 38 73 2d 63 74 72 00  |.k8s-w0.k8s-ctr.|
00000040  01 02 03 04 00 10 64 65  66 61 75 6c 74 2f 77 65  |......default/we|
00000050  62 70 6f 64 2d 31 01 00  00 00 05 0f 02 32 32 02  |bpod-1.......22.|
00000060  00 00 00 06 00 07 74 6f  6f 6c 73 2f 78           |......tools/x|
`
	if diff := cmp.Diff(want, hex.Dump(b[:len(b)-signature])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, pods, err := open(b, testKey)
	if err != nil || got != m {
		t.Errorf("opened as %+v, %v", got, err)
	}
	back, err := entriesOf(pods)
	if err != nil || !cmp.Equal(entries, back, cmp.AllowUnexported(entry{}, id{})) {
		t.Errorf("pods are %v, %v", back, err)
	}
}

// TestSizes bounds the parts, and puts them together again.
func TestSizes(t *testing.T) {
	for _, test := range []struct {
		pods int
		long bool
	}{{0, false}, {3, false}, {100, false}, {1000, false}, {100, true}, {1000, true}} {
		_, statuses := crowd(test.pods, "n1")
		if !test.long { // as a Deployment has them
			for i := range statuses {
				hash := sum(fmt.Sprint(i))
				statuses[i].Namespace, statuses[i].Name = "default", fmt.Sprintf("webpod-697b545f57-%05x", hash&0xfffff)
			}
		}
		var entries []entry
		for _, s := range statuses {
			entries = append(entries, entry{idOf(s.Key(), s.UID), localState(s)})
		}
		sortEntries(entries)
		parts := split(entries, maxPayload-overhead("", "")-roomForNames)
		var back []entry
		total, longest := 0, 0
		for _, part := range parts {
			size := overhead("k8s-ctr", "k8s-w0") + len(part)
			total, longest = total+size, max(longest, size)
			of, err := entriesOf(part)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, of...)
		}
		if longest > maxPayload || !cmp.Equal(entries, back, cmp.AllowUnexported(entry{}, id{})) {
			t.Errorf("%d pods: the longest part has %d bytes; %d pods came back", test.pods, longest, len(back))
		}
		t.Logf("%d pods, long names %v: %d bytes in %d parts", test.pods, test.long, total, len(parts))
	}
}

// FuzzOpen has anything said to be signed: it is refused, or read and written
// alike.
func FuzzOpen(f *testing.F) {
	m := message{from: "a", to: "b", start: 1, sequence: 2, heard: 3, digest: 4, version: 5, part: 1, parts: 2}
	for i := range 4 {
		var entries []entry
		for j := range i {
			entries = append(entries, entry{id{fmt.Sprintf("default/pod-%d", j), uint32(j)}, wireStates[j]})
		}
		b := m.seal(split(entries, 1000)[0], testKey)
		f.Add(b[:len(b)-signature])
	}
	m.from = strings.Repeat("n", 255)
	longest := m.seal(nil, testKey)
	f.Add(longest[:len(longest)-signature])
	f.Fuzz(func(t *testing.T, body []byte) {
		signed := append(append([]byte(nil), body...), sign(body, testKey)...)
		m, pods, err := open(signed, testKey)
		if _, _, unsigned := open(body, testKey); unsigned == nil {
			t.Fatal("opened without a signature")
		}
		if err != nil {
			return
		}
		if again := m.seal(pods, testKey); string(again) != string(signed) {
			t.Fatalf("read as %+v, which is written otherwise:\n%x\n%x", m, signed, again)
		}
		entries, err := entriesOf(pods)
		if err != nil {
			return
		}
		back, err := entriesOf(split(entries, 1<<20)[0])
		if err != nil || !cmp.Equal(entries, back, cmp.AllowUnexported(entry{}, id{})) {
			t.Fatalf("%v came back as %v, %v", entries, back, err)
		}
	})
}

// BenchmarkReceive takes in a datagram of a list that is known already, as
// comes every two seconds from each node.
func BenchmarkReceive(b *testing.B) {
	p1 := pod("p1", "n1")
	x := New(Config{})
	x.Set(stateOf("n0", 2, p1))
	body := split([]entry{{idOf("default/p1", p1.UID), Ready}}, 1000)[0]
	now, sequence := time.Now(), uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		sequence++
		m := message{from: "n1", to: "n0", start: 1, sequence: sequence, heard: x.start, version: 1, parts: 1}
		x.receive(m.seal(body, testKey), now)
	}
}
