package filter

import "golang.org/x/net/bpf"

// value is a number that is worked out from a packet. It writes code in front of
// what is there that leaves the number in A, and uses memory cells from depth on
// and X.
type value interface {
	write(p *program, depth int)
}

// maxDepth is how many memory cells there are.
const maxDepth = 16

type (
	number uint32
	// length is that of the packet.
	length struct{}
	// operation is between two values.
	operation struct {
		op          bpf.ALUOp
		left, right value
	}
	// access is some bytes of a packet, at an offset that is worked out.
	access struct {
		base   base
		add    uint32 // to the offset
		offset value
		size   int
	}
)

func (n number) write(p *program, _ int) {
	p.emit(bpf.LoadConstant{Dst: bpf.RegA, Val: uint32(n)})
}

func (length) write(p *program, _ int) { p.emit(bpf.LoadExtension{Num: bpf.ExtLen}) }

func (o operation) write(p *program, depth int) {
	if right, ok := o.right.(number); ok {
		p.emit(bpf.ALUOpConstant{Op: o.op, Val: uint32(right)})
		o.left.write(p, depth)
		return
	}
	p.emit(bpf.ALUOpX{Op: o.op})
	both(p, o.left, o.right, depth)
}

// both leaves left in A and right in X.
func both(p *program, left, right value, depth int) {
	p.emit(bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: depth})
	right.write(p, depth+1)
	p.emit(bpf.StoreScratch{Src: bpf.RegA, N: depth})
	left.write(p, depth)
}

func (a access) write(p *program, depth int) {
	at := a.base.start(p.link) + a.add
	if offset, ok := a.offset.(number); ok {
		if a.base == fromTransport {
			p.emit(bpf.LoadMemShift{Off: a.base.start(p.link)}, bpf.LoadIndirect{Off: at + uint32(offset), Size: a.size})
			return
		}
		p.emit(bpf.LoadAbsolute{Off: at + uint32(offset), Size: a.size})
		return
	}
	p.emit(bpf.TAX{}, bpf.LoadIndirect{Off: at, Size: a.size})
	if a.base == fromTransport {
		p.emit(bpf.LoadMemShift{Off: a.base.start(p.link)}, bpf.ALUOpX{Op: bpf.ALUOpAdd})
	}
	a.offset.write(p, depth)
}

// relation compares two values.
type relation struct {
	cond        bpf.JumpTest
	left, right value
}

func (r relation) write(p *program, yes, no label) label {
	if right, ok := r.right.(number); ok {
		p.branch(r.cond, uint32(right), yes, no)
		r.left.write(p, 0)
	} else {
		p.branchX(r.cond, yes, no)
		both(p, r.left, r.right, 0)
	}
	return label(len(p.reversed))
}

// fold joins two values, and works out at once what needs no packet. What is
// wrong with it is said in words; they are empty where nothing is.
func fold(op bpf.ALUOp, left, right value) (value, string) {
	r, constant := right.(number)
	switch op {
	case bpf.ALUOpDiv, bpf.ALUOpMod:
		if constant && r == 0 {
			return nil, "division by zero"
		}
	case bpf.ALUOpShiftLeft, bpf.ALUOpShiftRight:
		if constant && r > 31 {
			return nil, "a shift by more than 31 bits"
		}
	}
	l, ok := left.(number)
	if !ok || !constant {
		return operation{op, left, right}, ""
	}
	switch op {
	case bpf.ALUOpAdd:
		l += r
	case bpf.ALUOpSub:
		l -= r
	case bpf.ALUOpMul:
		l *= r
	case bpf.ALUOpDiv:
		l /= r
	case bpf.ALUOpMod:
		l %= r
	case bpf.ALUOpAnd:
		l &= r
	case bpf.ALUOpOr:
		l |= r
	case bpf.ALUOpXor:
		l ^= r
	case bpf.ALUOpShiftLeft:
		l <<= r
	case bpf.ALUOpShiftRight:
		l >>= r
	}
	return l, ""
}

// depth is how many memory cells a value takes.
func depth(v value) int {
	switch v := v.(type) {
	case operation:
		if _, ok := v.right.(number); ok {
			return depth(v.left)
		}
		return max(depth(v.left), depth(v.right)+1, 1)
	case access:
		return depth(v.offset)
	}
	return 0
}
