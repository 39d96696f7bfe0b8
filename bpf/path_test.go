//go:build linux

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPaths walks packets along the datapath. A file of testdata has two kinds
// of lines: what is so (arrange), and steps: a program, a device and a frame, on
// the next line the verdict and the whole frame that comes out. Frames are compared byte by byte, so every checksum is.
// Each file runs three times: with checksums written by the programs, by the
// kernel's helpers, and with a kernel that holds a sum of the packet besides.
func TestPaths(t *testing.T) { testPaths(t, "testdata/*.txt", 0) }

// TestTunnelPaths does the same on a node that reaches other nodes' pods by a
// tunnel.
func TestTunnelPaths(t *testing.T) { testPaths(t, "testdata/tunnel/*.txt", 8472) }

func testPaths(t *testing.T, pattern string, tunnel uint16) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files are like %s: %v", pattern, err)
	}
	for _, mode := range []struct {
		name   string
		direct bool
		flags  uint32
	}{{"direct", true, 0}, {"helpers", false, 0}, {"complete", true, testChecksumComplete}} {
		t.Run(mode.name, func(t *testing.T) {
			inNamespace(t, func() {
				o := testOptions
				o.Features.KernelContext = mode.direct
				makeDevices(t)
				n := newNode(t, o)
				n.unsure = !mode.direct
				for _, file := range files {
					n.reset(t)
					n.put(t, Settings, uint32(0), DatapathSetting{TunnelPort: Port(tunnel)})
					n.walk(t, file, mode.flags)
				}
			})
		})
	}
}

// Linux 6.18: the kernel verifies skb->csum against the packet after the run.
const testChecksumComplete = 1 << 2

func (n *node) walk(t *testing.T, file string, flags uint32) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		line, _, _ := strings.Cut(lines[i], "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		where := fmt.Sprintf("%s:%d", file, i+1)
		if n.arrange(t, words) {
			continue
		}
		i++
		if i == len(lines) {
			t.Errorf("%s: no verdict", where)
			return
		}
		if err := n.step(t, strings.TrimSpace(line), strings.TrimSpace(lines[i]), flags); err != nil {
			t.Errorf("%s: %v", where, err)
			return // what follows builds on it
		}
	}
}

func (n *node) step(t *testing.T, given, wanted string, flags uint32) error {
	t.Helper()
	words := strings.SplitN(given, " ", 3)
	if len(words) < 3 || n.Programs[words[0]] == nil {
		return fmt.Errorf("no step: %q", given)
	}
	in, err := parseFrame(words[2])
	if err != nil {
		return err
	}
	verdict, rest, _ := strings.Cut(wanted, " ")
	if verdict == "drop" {
		return n.stepDropped(t, words[0], words[1], in, rest, flags)
	}
	destination, source := outside[0], outside[1]
	code := int32(-1)
	counts := DatapathReasonREASON_FORWARDED
	switch verdict {
	case "peer", "redirect":
		var device string
		device, rest, _ = strings.Cut(rest, " ")
		destination, source, code = mac[device], hostMAC[device], 7
	case "refuse":
		destination, source, code, counts = source, destination, 7, DatapathReasonREASON_NO_BACKEND
	}
	out := in
	if rest != "same" {
		if out, err = parseFrame(rest); err != nil {
			return err
		}
	}
	before := n.counted(t, counts)
	if counts != DatapathReasonREASON_FORWARDED && in.size > 0 {
		flags = 0 // the kernel holds no sum any more of what was cut off
	}
	got, frame := n.run(t, words[0], words[1], in.bytes(outside[0], outside[1]), flags)
	if got != code {
		return fmt.Errorf("%s\n\tverdict %d, want %d (%s)%s", given, got, code, wanted, n.lastDrop(t))
	}
	want := out.bytes(destination, source)
	if counts != DatapathReasonREASON_FORWARDED && n.unsure {
		settle(want, frame)
	}
	if !bytes.Equal(frame, want) {
		return fmt.Errorf("%s\n\tgot  %x\n\twant %x (%s)", given, frame, want, wanted)
	}
	if after := n.counted(t, counts); after != before+1 {
		return fmt.Errorf("%s\n\tcounted %d for reason %d, want 1", given, after-before, counts)
	}
	return nil
}

func (n *node) stepDropped(t *testing.T, program, device string, in *frame, rest string, flags uint32) error {
	t.Helper()
	number, err := strconv.Atoi(rest)
	if err != nil {
		return err
	}
	before := n.counted(t, DatapathReason(number))
	if got, _ := n.run(t, program, device, in.bytes(outside[0], outside[1]), flags); got != 2 {
		return fmt.Errorf("verdict %d, want a drop for reason %d", got, number)
	}
	if after := n.counted(t, DatapathReason(number)); after != before+1 {
		return fmt.Errorf("counted %d for reason %d, want 1%s", after-before, number, n.lastDrop(t))
	}
	return nil
}

// settle puts into an error the quoted checksum that the datapath chose, if that
// stays when it is finished, and then the right sum of the error.
func settle(want, got []byte) {
	const quoted = 14 + 20 + 8
	l4 := quoted + int(want[quoted]&15)*4
	at := l4 + map[byte]int{6: 16, 17: 6}[want[quoted+9]]
	if len(got) != len(want) || want[at] == 0 && want[at+1] == 0 {
		return
	}
	chosen := binary.BigEndian.Uint16(got[at:])
	if sum(got[l4:], 0)%0xffff != chosen%0xffff {
		return
	}
	binary.BigEndian.PutUint16(want[at:], chosen)
	binary.BigEndian.PutUint16(want[34+2:], 0)
	binary.BigEndian.PutUint16(want[34+2:], sum(want[34:], 0))
}

// lastDrop lists all drops so far, for a message.
func (n *node) lastDrop(t testing.TB) string {
	var b strings.Builder
	for reason := DatapathReason(1); reason < 256; reason++ {
		if c := n.counted(t, reason); c > 0 {
			fmt.Fprintf(&b, "; so far %d for reason %d", c, reason)
		}
	}
	return b.String()
}
