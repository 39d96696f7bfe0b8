package filter

import (
	"slices"

	"golang.org/x/net/bpf"
)

// program is written from its end to its beginning: all jumps of classic BPF go
// forward, so that where each leads to is known when it is written.
type program struct {
	reversed       []bpf.Instruction
	accept, reject label
	link           Link
}

// label is an instruction, by how many there are from it to the end.
type label int

// maxSkip is how far a conditional jump reaches.
const maxSkip = 255

func newProgram(snapLength int) *program {
	p := new(program)
	p.reject = p.emit(bpf.RetConstant{Val: 0})
	p.accept = p.emit(bpf.RetConstant{Val: uint32(snapLength)})
	return p
}

// emit puts instructions, in the order in which they run, in front of what is
// there, and returns the first.
func (p *program) emit(instructions ...bpf.Instruction) label {
	for _, one := range slices.Backward(instructions) {
		p.reversed = append(p.reversed, one)
	}
	return label(len(p.reversed))
}

// program is the whole, from its beginning on.
func (p *program) program() []bpf.Instruction {
	instructions := slices.Clone(p.reversed)
	slices.Reverse(instructions)
	return instructions
}

// enter makes a label the beginning.
func (p *program) enter(l label) {
	if int(l) != len(p.reversed) {
		p.emit(bpf.Jump{Skip: uint32(len(p.reversed) - int(l))})
	}
}

// near is a label that a conditional jump reaches that comes with at most one
// more instruction behind it: l, or a jump to it.
func (p *program) near(l label) label {
	if len(p.reversed)+1-int(l) <= maxSkip {
		return l
	}
	return p.emit(bpf.Jump{Skip: uint32(len(p.reversed) - int(l))})
}

// branch compares A with a value.
func (p *program) branch(cond bpf.JumpTest, value uint32, yes, no label) label {
	yes, no = p.near(yes), p.near(no)
	return p.emit(bpf.JumpIf{Cond: cond, Val: value, SkipTrue: p.skip(yes), SkipFalse: p.skip(no)})
}

// branchX compares A with X.
func (p *program) branchX(cond bpf.JumpTest, yes, no label) label {
	yes, no = p.near(yes), p.near(no)
	return p.emit(bpf.JumpIfX{Cond: cond, SkipTrue: p.skip(yes), SkipFalse: p.skip(no)})
}

func (p *program) skip(l label) uint8 { return uint8(len(p.reversed) - int(l)) }

// match writes the test of a node for a link.
func (p *program) match(n node, link Link) label {
	p.link = link
	return n.write(p, p.accept, p.reject)
}

// node is a condition. It writes itself, with what comes after in either case
// written already, and returns where it begins.
type node interface {
	write(p *program, yes, no label) label
}

type (
	and      struct{ left, right node }
	or       struct{ left, right node }
	not      struct{ node node }
	constant bool
)

func (n and) write(p *program, yes, no label) label {
	return n.left.write(p, n.right.write(p, yes, no), no)
}

func (n or) write(p *program, yes, no label) label {
	return n.left.write(p, yes, n.right.write(p, yes, no))
}

func (n not) write(p *program, yes, no label) label { return n.node.write(p, no, yes) }

func (n constant) write(_ *program, yes, no label) label {
	if n {
		return yes
	}
	return no
}

// all and any join conditions, of which there is one at least.
func all(first node, rest ...node) node {
	for _, n := range rest {
		first = and{first, n}
	}
	return first
}

func anyOf(first node, rest ...node) node {
	for _, n := range rest {
		first = or{first, n}
	}
	return first
}

// base is where an offset counts from.
type base int

const (
	fromLink      base = iota // the link layer's header
	fromNetwork               // the network layer's
	fromTransport             // what follows the IPv4 header
)

// start is where the base is in a packet; for fromTransport X holds what is to be added.
func (b base) start(link Link) uint32 {
	if b == fromLink || link == Raw {
		return 0
	}
	return ethernetHeader
}

const ethernetHeader = 14

// field compares some bytes of a packet, under a mask where that is not 0.
type field struct {
	base   base
	offset uint32
	size   int
	mask   uint32
	cond   bpf.JumpTest
	value  uint32
}

func (f field) write(p *program, yes, no label) label {
	p.branch(f.cond, f.value, yes, no)
	if f.mask != 0 {
		p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: f.mask})
	}
	at := f.base.start(p.link) + f.offset
	if f.base == fromTransport {
		return p.emit(bpf.LoadMemShift{Off: f.base.start(p.link)}, bpf.LoadIndirect{Off: at, Size: f.size})
	}
	return p.emit(bpf.LoadAbsolute{Off: at, Size: f.size})
}

// etherType is the protocol of the network layer, by Ethernet's number.
type etherType uint32

// The network layer's protocols.
const (
	typeIP   etherType = 0x800
	typeARP  etherType = 0x806
	typeRARP etherType = 0x8035
	typeIPv6 etherType = 0x86dd
)

func (t etherType) write(p *program, yes, no label) label {
	if p.link == Ethernet {
		return field{offset: 12, size: 2, cond: bpf.JumpEqual, value: uint32(t)}.write(p, yes, no)
	}
	version := field{size: 1, mask: 0xf0, cond: bpf.JumpEqual}
	switch t {
	case typeIP:
		version.value = 0x40
	case typeIPv6:
		version.value = 0x60
	default:
		return no
	}
	return version.write(p, yes, no)
}

// onEthernet holds for no packet of another link.
type onEthernet struct{ node node }

func (n onEthernet) write(p *program, yes, no label) label {
	if p.link != Ethernet {
		return no
	}
	return n.node.write(p, yes, no)
}

// leaving holds for packets that the node sends; only a socket knows.
type leaving struct{}

func (leaving) write(p *program, yes, no label) label {
	const outgoing = 4 // PACKET_OUTGOING of linux/if_packet.h
	p.branch(bpf.JumpEqual, outgoing, yes, no)
	return p.emit(bpf.LoadExtension{Num: bpf.ExtType})
}
