package filter

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"

	"github.com/native-routing/labctl/labctl/capture/capturetest"
)

func file(t testing.TB, link Link, packets [][]byte) string {
	types := map[Link]layers.LinkType{Ethernet: layers.LinkTypeEthernet, Raw: layers.LinkTypeRaw}
	return capturetest.File(t, types[link], packets)
}

// tcpdump says which packets of a file pass an expression, by the program before
// optimization: libpcap 1.10 is known to optimize some expressions into others.
func tcpdump(t testing.TB, path, expression string) ([]int, error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("tcpdump", "-O", "-r", path, "-w", "-", "--", expression)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !strings.Contains(errs.String(), "rejects all packets") {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	r, err := pcapgo.NewReader(&out)
	if err != nil {
		return nil, nil // nothing passes
	}
	var passed []int
	for {
		_, info, err := r.ReadPacketData()
		if err != nil {
			return passed, nil
		}
		passed = append(passed, int(info.Timestamp.Unix()))
	}
}

func ours(t testing.TB, f Filter, link Link, packets [][]byte) []int {
	t.Helper()
	machine, err := bpf.NewVM(f.Program(link, 65535))
	if err != nil {
		t.Fatal(err)
	}
	var passed []int
	for i, p := range packets {
		n, err := machine.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			passed = append(passed, i)
		}
	}
	return passed
}

func names(name string) []netip.Addr {
	if name != "k8s-ctr" {
		return nil
	}
	return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("172.20.0.5")}
}

// expressions are what people write, and what is easily got wrong.
var expressions = []string{
	"", "icmp", "tcp", "udp", "arp", "rarp", "ip", "ip6", "icmp6", "igmp", "sctp", "esp", "ah", "pim", "vrrp", "igrp",
	"host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.1", "src 10.0.0.1", "dst 172.20.2.7", "src and dst host 10.0.0.1",
	"src or dst host 10.0.0.1", "dst and src 10.0.0.1", "ip host 10.0.0.1", "arp host 10.0.0.1", "rarp host 10.0.0.1", "host 10.1", "ip src 10.0.0.1",
	"host ::1", "ip6 host fd00::1", "src host fd00::1", "net fd00::/8", "net fd00::/64", "net fd00::/100", "ip6 src net fd00::/32",
	"net 10", "net 172.20", "net 10.0.0", "net 172.20.0.0/16", "src net 172.20.0.0/16", "dst net 172.20.2.0/24",
	"net 172.20.0.0 mask 255.255.0.0", "net 10.0.0.0/31", "net 10.0.0.1/32", "net 0.0.0.0/0", "arp net 10.0.0.0/24",
	"port 80", "src port 80", "dst port 80", "tcp port 80", "udp port 53", "tcp src port 80", "sctp port 80", "port http", "udp port domain",
	"port 80 or 443", "tcp port (80 or 443)", "not port 80 or 443", "port not 80", "src and dst port 80", "udp port 8472",
	"portrange 80-90", "tcp portrange 8000-8100", "portrange 90", "udp dst portrange 50-60", "portrange 90-80",
	"proto 6", "ip proto 17", `ip proto \icmp`, `proto \tcp`, "ip6 proto 6", "ether proto 0x806", `ether proto \arp`, "ether proto 0x88cc", "proto 47",
	"broadcast", "multicast", "ether broadcast", "ether multicast", "ip multicast", "ip6 multicast",
	"ether host 2:0:0:0:0:1", "ether src 02:00:00:00:00:01", "ether dst 02-00-00-00-00-02", "ether dst host ff:ff:ff:ff:ff:ff",
	"less 64", "greater 100", "len > 100", "len = 42", "len - 14 >= ip[2:2]", "len <= 60",
	"icmp[icmptype] = icmp-echo", "icmp[icmptype] == icmp-echoreply", "icmp[0] = 3 and icmp[1] = 4", "icmp[icmptype] != 8", "icmp[4:2] > 100",
	"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[tcpflags] = tcp-syn", "tcp[13] & 2 != 0", "tcp[13] == 18", "tcp[tcpflags] & tcp-ack = 0",
	"tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "tcp[2:2] = 80", "tcp[4:4] > tcp[8:4]", "udp[4:2] > 20", "udp[8:4] = 0x08000000",
	"ip[8] < 5", "ip[0] & 0xf != 5", "ip[6] & 0x40 != 0", "ip[6:2] & 0x1fff != 0", "ip[2:2] > 100", "ip[12:4] = 0x0a000001", "ip[12:4] != ip[16:4]",
	"ip[9] = 6 or ip[9] = 17", "ip6[6] = 58", "icmp6[0] = 135", "arp[6:2] = 1", "arp[7] = 2", "ether[0] & 1 = 0", "ether[12:2] = 0x800", "link[6] = 2",
	"not tcp", "not not tcp", "! tcp", "!tcp&&!udp", "tcp or udp and port 53", "tcp or (udp and port 53)", "not (tcp or udp)", "not tcp and not udp",
	"icmp or arp", "icmp and src 172.20.0.5 and dst 172.20.2.7", "host 10.0.0.1 or 172.20.0.5 and icmp", "(icmp)", "((tcp and port 80))",
	"tcp and (port 80 or 443) and not host 10.0.0.9", "ip and not broadcast and not multicast", "tcp or icmp and not port 80 || arp",
	"1 = 1", "1 = 2", "5 - 2 * 2 = 1", "8 >> 1 + 1 = 2", "1 | 2 & 4 = 1", "-1 > 0", "len % 2 = 0", "len / 10 = 4", "ip[0] ^ 0x45 = 0", "0x10 = 020",
	"ip[ip[0] & 0xf * 4] = 8", "udp[udp[4:2] - 1] = 0", "tcp[(tcp[12] >> 4) * 4] = 0x47", "ip[8] - ip[9] > 10", "tcp[0:2] + tcp[2:2] > 60000",
	"ip[ip[8] & 3 + ip[9] & 3] > ip[len & 7]", "(ip[8] + (ip[9] + (ip[10] + ip[11]))) & 1 = 0",
	"host 10.0.0.1 and not arp", "icmp and not src net 172.20.0.0/16",
}

func TestPacketsFareAsWithTcpdump(t *testing.T) {
	for link, packets := range map[Link][][]byte{Ethernet: capturetest.Frames(t), Raw: capturetest.Datagrams(t)} {
		path := file(t, link, packets)
		told := 0
		for _, e := range expressions {
			want, err := tcpdump(t, path, e)
			if err != nil && link == Raw {
				continue // what Raw does not have, libpcap refuses
			}
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			f, err := Parse(e, names)
			if err != nil {
				t.Errorf("%s: %v", e, err)
				continue
			}
			got := ours(t, f, link, packets)
			if !slices.Equal(got, want) {
				t.Errorf("link %d: %s: passed %v, with tcpdump %v", link, e, got, want)
			}
			if len(got) > 0 && len(got) < len(packets) {
				told++
			}
		}
		t.Logf("link %d: %d packets, %d expressions, of which %d tell some from others", link, len(packets), len(expressions), told)
	}
}

// random writes an expression that makes sense.
func random(r *rand.Rand, depth int) string {
	pick := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	if depth > 0 && r.IntN(3) > 0 {
		switch r.IntN(5) {
		case 0:
			return pick("not ", "! ", "!") + random(r, depth-1)
		case 1:
			return "(" + random(r, depth-1) + ")"
		default:
			return random(r, depth-1) + pick(" and ", " or ", " && ", " || ") + random(r, depth-1)
		}
	}
	direction := pick("", "", "src ", "dst ", "src or dst ", "src and dst ")
	switch r.IntN(9) {
	case 0:
		return pick("icmp", "tcp", "udp", "arp", "ip", "ip6", "icmp6", "sctp", "igmp", "broadcast", "ip multicast")
	case 1:
		return pick("", "ip ", "arp ") + direction + "host " + pick("10.0.0.1", "10.0.0.2", "172.20.0.5", "172.20.2.7", "1.2.3.4")
	case 2:
		return direction + "net " + pick("10", "10.0.0.0/8", "172.20.0.0/16", "172.20.2.0/24", "0.0.0.0/1", "fd00::/16")
	case 3:
		return pick("", "tcp ", "udp ", "sctp ") + direction + "port " + pick("80", "53", "443", "8472", "40000")
	case 4:
		return pick("", "tcp ", "udp ") + direction + "portrange " + pick("1-100", "8000-9000", "53-80", "40000-65535")
	case 5:
		return pick("less ", "greater ") + fmt.Sprint(r.IntN(200))
	case 6:
		return pick("icmp[icmptype]", "icmp[1]", "tcp[tcpflags]", "tcp[13] & 0x12", "ip[8]", "udp[4:2]", "ip[6:2] & 0x3fff", "arp[7]", "ether[5]", "len") +
			pick(" = ", " != ", " > ", " < ", " >= ", " <= ") + fmt.Sprint(r.IntN(70))
	case 7:
		return fmt.Sprintf("ip[%d:%s] %s ip[%d] & 0x%x", r.IntN(16), pick("1", "2", "4"), pick("=", ">", "<", "!="), r.IntN(19), r.IntN(256))
	}
	return pick("ip ", "ip6 ", "") + "proto " + pick("1", "6", "17", `\udp`, "132")
}

func TestRandomExpressionsFareAsWithTcpdump(t *testing.T) {
	packets := capturetest.Frames(t)
	path := file(t, Ethernet, packets)
	for seed := range uint64(150) {
		e := random(rand.New(rand.NewPCG(seed, 5)), 5)
		f, err := Parse(e, nil)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		got := ours(t, f, Ethernet, packets)
		want, err := tcpdump(t, path, e)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: %s: passed %v, with tcpdump %v\n%x", seed, e, got, want, packets[first(got, want)])
		}
	}
}

// A program with jumps that are longer than a conditional jump reaches.
func TestLongExpression(t *testing.T) {
	packets := capturetest.Frames(t)
	path := file(t, Ethernet, packets)
	var parts []string
	for i := range 70 {
		parts = append(parts, fmt.Sprintf("(tcp port %d and not host 10.9.0.%d)", i+60, i))
	}
	e := strings.Join(parts, " or ") + " or arp"
	f, err := Parse(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := tcpdump(t, path, e)
	if err != nil {
		t.Fatal(err)
	}
	if got := ours(t, f, Ethernet, packets); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("passed %v, with tcpdump %v", got, want)
	}
	if _, err := f.Socket(100); err == nil {
		t.Errorf("a program of %d instructions for each link was taken", len(f.Program(Ethernet, 1)))
	}
}

func TestMistakesPointToTheWord(t *testing.T) {
	for _, test := range []struct{ expression, word, message string }{
		{"icmp and hots 10.0.0.1", "hots", "(host?)"},
		{"icmp and", "", "missing at the end"},
		{"(tcp", "(", "not closed"},
		{"tcp)", ")", "no parenthesis is open"},
		{"tcp udp", "udp", "between two conditions"},
		{"host", "", "missing behind host"},
		{"tcp host 10.0.0.1", "tcp", "(tcp and host 10.0.0.1)"},
		{"10.0.0.1", "10.0.0.1", "(host 10.0.0.1"},
		{"icmp port 5", "icmp", "has no ports"},
		{"port 70000", "70000", "largest is 65535"},
		{"port nosuch", "nosuch", "name of a service"},
		{"host nosuch", "nosuch", "no node or pod"},
		{"net 10.0.0.1/8", "10.0.0.1", "(net 10.0.0.0/8)"},
		{"net 10.0.0.0/33", "33", "0 to 32 bits"},
		{"net 10.0.0.0 mask 255.0.255.0", "255.0.255.0", "must stand in front"},
		{"tcp[0:3] = 1", "3", "1, 2 or 4"},
		{"tcp[13 = 2", "=", "] is missing"},
		{"tcp[13] & 2", "", "is compared by"},
		{"ip[1/0] = 1", "/", "division by zero"},
		{"ether host 10.0.0.1", "10.0.0.1", "no Ethernet address"},
		{"ip broadcast", "broadcast", "cannot be told"},
		{"proto nosuch", "nosuch", "neither a number"},
		{"tcp ; udp", ";", "no meaning"},
		{"greater x", "x", "length in bytes"},
		{"esp[0] = 1", "esp", "no bytes"},
		{strings.Repeat("(", 200) + "tcp" + strings.Repeat(")", 200), "(", "inside of each other"},
	} {
		_, err := Parse(test.expression, names)
		var wrong *Error
		if !errors.As(err, &wrong) {
			t.Errorf("%s: taken, or %v", test.expression, err)
			continue
		}
		word := test.expression[wrong.Offset : wrong.Offset+wrong.Length]
		if word != test.word || !strings.Contains(wrong.Message, test.message) {
			t.Errorf("points to %q, not to %q and %q:\n%v", word, test.word, test.message, err)
		}
	}
}

func TestNamesOfTheLab(t *testing.T) {
	packets := capturetest.Frames(t)
	named, err := Parse("host k8s-ctr and icmp", names)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := Parse("(host 10.0.0.1 or 172.20.0.5) and icmp", names)
	if err != nil {
		t.Fatal(err)
	}
	got, want := ours(t, named, Ethernet, packets), ours(t, plain, Ethernet, packets)
	if len(got) == 0 || !slices.Equal(got, want) {
		t.Errorf("passed %v, by addresses %v", got, want)
	}
	but := ours(t, named.Except(plain), Ethernet, packets)
	if len(but) != 0 {
		t.Errorf("passed %v, though excepted", but)
	}
}

// FuzzParse: no text makes it panic, or write a program that is none.
func FuzzParse(f *testing.F) {
	for _, e := range expressions {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		parsed, err := Parse(expression, nil)
		var wrong *Error
		if err != nil {
			if !errors.As(err, &wrong) || wrong.Offset+wrong.Length > len(expression) {
				t.Errorf("%q: %v", expression, err)
			}
			return
		}
		for _, link := range []Link{Ethernet, Raw} {
			program := parsed.Program(link, 1)
			if _, err := bpf.Assemble(program); err != nil {
				t.Errorf("%q: %v", expression, err)
			}
		}
	})
}

// first is the first packet that fares differently.
func first(got, want []int) int {
	for i := range 1 << 16 {
		if slices.Contains(got, i) != slices.Contains(want, i) {
			return i
		}
	}
	return -1
}
