package ladder

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/capture"
	"github.com/native-routing/labctl/labctl/capture/capturetest"
)

const session = 4711

// echo is a tagged echo of a session, or its reply.
func echo(t *testing.T, reply bool, from, to string, ttl byte, of uint32) []byte {
	kind := uint8(layers.ICMPv4TypeEchoRequest)
	if reply {
		kind = layers.ICMPv4TypeEchoReply
	}
	tag := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, api.TagMagic), of)
	ip := capturetest.IPv4(from, to, layers.IPProtocolICMPv4)
	ip.TTL = ttl
	return capturetest.Serialize(t, capturetest.Ethernet(layers.EthernetTypeIPv4, 2), ip,
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 9, Seq: 1}, gopacket.Payload(append(tag, make([]byte, 48)...)))
}

// seen is a packet at NODE DEVICE, out or in, at a time by the node's own clock.
func seen(place, device string, out bool, at time.Time, data []byte) Seen {
	flags := pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound, Reception: pcapgo.NgEpbFlagReceptionTypeUnicast}
	if out {
		flags = pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionOutbound}
	}
	return Seen{Place{Node: place}, capture.Packet{
		Device: capture.Device{Place: place, Name: device, Link: layers.LinkTypeEthernet}, Time: at, Flags: flags, Length: len(data), Data: data,
	}}
}

func legText(leg []Rung) string {
	var parts []string
	for _, r := range leg {
		parts = append(parts, fmt.Sprintf("%s %s %v %d", r.Node, r.Device, r.Outgoing, r.TTL))
	}
	return strings.Join(parts, ", ")
}

// Nodes' clocks may be hours apart, and their sightings come in any order.
func TestJoinNeedsNoCommonClock(t *testing.T) {
	const from, to = "10.1.0.2", "10.3.0.9"
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		clocks := map[string]time.Time{}
		at := func(node string, step int) time.Time {
			if _, ok := clocks[node]; !ok {
				clocks[node] = time.Unix(r.Int64N(1e6), 0)
			}
			return clocks[node].Add(time.Duration(step) * time.Microsecond)
		}
		all := []Seen{
			seen("a", "eth1", true, at("a", 1), echo(t, false, from, to, 64, session)),
			seen("r", "eth1", false, at("r", 2), echo(t, false, from, to, 64, session)),
			seen("r", "eth2", true, at("r", 3), echo(t, false, "10.2.0.1", to, 63, session)),
			seen("b", "eth1", false, at("b", 4), echo(t, false, "10.2.0.1", to, 63, session)),
			seen("b", "eth1", true, at("b", 5), echo(t, true, to, "10.2.0.1", 64, session)),
			seen("r", "eth2", false, at("r", 6), echo(t, true, to, "10.2.0.1", 64, session)),
			seen("r", "eth1", true, at("r", 7), echo(t, true, to, from, 63, session)),
			seen("a", "eth1", false, at("a", 8), echo(t, true, to, from, 63, session)),
			// Others' echoes, one that was sent again, and one that a bridge flooded.
			seen("a", "eth1", true, at("a", 9), echo(t, false, from, to, 64, session+1)),
			seen("a", "eth1", true, at("a", 10), echo(t, false, from, to, 64, session)),
		}
		flooded := seen("c", "eth1", false, at("c", 2), echo(t, false, from, to, 64, session))
		flooded.Packet.Flags.Reception = pcapgo.NgEpbFlagReceptionTypePromiscuous
		all = append(all, flooded)
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		there, back, errors := Join(Sent{Probe: Probe{Node: "a", Protocol: ICMP}, Session: session}, all)
		if got, want := legText(there), "a eth1 true 64, r eth1 false 64, r eth2 true 63, b eth1 false 63"; got != want {
			t.Fatalf("seed %d: there %s, not %s", seed, got, want)
		}
		if got, want := legText(back), "b eth1 true 64, r eth2 false 64, r eth1 true 63, a eth1 false 63"; got != want || len(errors) > 0 {
			t.Fatalf("seed %d: back %s, not %s", seed, got, want)
		}
		for i, rung := range append(there, back...) {
			if took := rung.Time.Sub(there[0].Time); took != time.Duration(i)*time.Microsecond {
				t.Errorf("seed %d: rung %d is %s after the first", seed, i, took)
			}
		}
	}
}

// A clock is moved only where the packet refutes it, and as little as that takes
// where no answer says more.
func TestJoinMovesClocksThatThePacketRefutes(t *testing.T) {
	const from, to = "10.1.0.2", "10.3.0.9"
	for _, c := range []struct {
		name        string
		r, b        time.Duration // when it passes r, and comes to b, by their clocks
		wantR, want time.Duration
	}{
		{"clocks that may agree", 3 * time.Millisecond, 9 * time.Millisecond, 3 * time.Millisecond, 9 * time.Millisecond},
		{"a router's that is late", -4 * time.Millisecond, 9 * time.Millisecond, 0, 9 * time.Millisecond},
		{"both late", -4 * time.Millisecond, -9 * time.Millisecond, 0, 0},
	} {
		start := time.Unix(1000, 0)
		there, _, _ := Join(Sent{Probe: Probe{Node: "a", Protocol: ICMP}, Session: session}, []Seen{
			seen("a", "eth1", true, start, echo(t, false, from, to, 64, session)),
			seen("r", "eth1", false, start.Add(c.r), echo(t, false, from, to, 64, session)),
			seen("r", "eth2", true, start.Add(c.r), echo(t, false, from, to, 63, session)),
			seen("b", "eth1", false, start.Add(c.b), echo(t, false, from, to, 63, session)),
		})
		if r, b := there[2].Time.Sub(start), there[3].Time.Sub(start); r != c.wantR || b != c.want {
			t.Errorf("%s: r at %s, b at %s, want %s and %s", c.name, r, b, c.wantR, c.want)
		}
	}
}

// An error may quote no more than 8 bytes of what it is about.
func TestJoinErrorsThatQuoteLittle(t *testing.T) {
	request := echo(t, false, "10.1.0.2", "10.3.0.9", 64, session)
	quote := func(packet []byte, id byte) []byte {
		short := slices.Clone(packet[14 : 14+28])
		short[25] = id
		return capturetest.Serialize(t, capturetest.Ethernet(layers.EthernetTypeIPv4, 2), capturetest.IPv4("10.1.0.1", "10.1.0.2", layers.IPProtocolICMPv4),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1400}, gopacket.Payload(short))
	}
	_, _, errors := Join(Sent{Probe: Probe{Node: "a", Protocol: ICMP}, Session: session}, []Seen{
		seen("a", "eth1", true, time.Unix(1, 0), request),
		seen("a", "eth1", false, time.Unix(2, 0), quote(request, 9)),
		seen("a", "eth1", false, time.Unix(3, 0), quote(request, 10)), // about an echo of somebody else
	})
	if len(errors) != 1 || errors[0].Error.MTU != 1400 || errors[0].Error.Reply || errors[0].Error.QuotedTo.String() != "10.3.0.9" {
		t.Errorf("%+v", errors)
	}
}
