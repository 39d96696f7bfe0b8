// Package filter compiles pcap-filter(7) expressions, as tcpdump takes them, to
// classic BPF. It knows the language but for what libpcap has for links that no
// lab has (wlan, ppp, atm, mpls, vlan, geneve, pf) and protochain; each packet
// fares with its programs as with tcpdump's. Where tcpdump's "any" device sees
// packets without their Ethernet headers, these programs see them with.
package filter

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/bpf"
)

// Names finds the addresses of a host's name; none for one that it does not know.
type Names func(name string) []netip.Addr

// Filter is an expression that makes sense. The zero value lets every packet pass.
type Filter struct{ root node }

// Parse reads an expression; an empty one lets every packet pass. The error is
// an [*Error]. Names may be nil.
func Parse(expression string, names Names) (Filter, error) {
	if names == nil {
		names = func(string) []netip.Addr { return nil }
	}
	p := parser{expression: expression, names: names}
	root, err := p.parse()
	if err != nil {
		return Filter{}, err
	}
	return Filter{root}, nil
}

// Except lets pass what f lets pass and other does not.
func (f Filter) Except(other Filter) Filter {
	return Filter{and{not{other.node()}, f.node()}}
}

func (f Filter) node() node {
	if f.root == nil {
		return constant(true)
	}
	return f.root
}

// Error is an expression that makes no sense.
type Error struct {
	Expression string
	// Offset and Length are the place of the word that is wrong, in bytes.
	Offset, Length int
	Message        string
}

// Error points to the word, on lines of its own.
func (e *Error) Error() string {
	return fmt.Sprintf("filter: %s\n  %s\n  %s%s", e.Message, e.Expression, strings.Repeat(" ", e.Offset), strings.Repeat("^", max(e.Length, 1)))
}

// Link is the header that packets begin with.
type Link int

// The links of a lab.
const (
	Ethernet Link = iota
	Raw           // none: packets begin with IP
)

// The ARPHRD_ numbers of devices whose packets have Ethernet's header.
const (
	hardwareEthernet = 1
	hardwareLoopback = 772
)

// maxInstructions is what Linux takes (BPF_MAXINSNS).
const maxInstructions = 4096

// Socket is the program for a packet socket of type SOCK_RAW on any devices,
// which keeps snapLength bytes of what passes.
func (f Filter) Socket(snapLength int) ([]bpf.RawInstruction, error) {
	p := newProgram(snapLength)
	raw := p.match(f.node(), Raw)
	ethernet := p.match(f.node(), Ethernet)
	other := p.branch(bpf.JumpEqual, hardwareLoopback, ethernet, raw)
	p.branch(bpf.JumpEqual, hardwareEthernet, ethernet, other)
	p.emit(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	program := p.program()
	if len(program) > maxInstructions {
		return nil, fmt.Errorf("filter: it takes %d instructions, and the kernel takes %d (make it shorter)", len(program), maxInstructions)
	}
	return bpf.Assemble(program)
}

// Program is the program for packets of one link.
func (f Filter) Program(link Link, snapLength int) []bpf.Instruction {
	p := newProgram(snapLength)
	p.enter(p.match(f.node(), link))
	return p.program()
}
