package filter

import (
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/net/bpf"
)

// parser reads an expression from its beginning to its end, one word ahead.
type parser struct {
	expression string
	names      Names
	tokens     []token
	at         int
	// last are the qualifiers of the last primitive: a word alone has them too.
	last *qualifiers
	// nested is how deep the parentheses are.
	nested int
}

// maxNested keeps the stack, and the program, small.
const maxNested = 100

func (p *parser) parse() (node, error) {
	tokens, wrong := lex(p.expression)
	if wrong != nil {
		return nil, wrong
	}
	p.tokens = tokens
	if len(tokens) == 1 {
		return constant(true), nil
	}
	n, wrong := p.conditions()
	if wrong != nil {
		return nil, wrong
	}
	if p.peek().kind != tokenEnd {
		return nil, p.wrong(p.peek(), "%s", p.misplaced(p.peek()))
	}
	return n, nil
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) take() token {
	t := p.tokens[p.at]
	if t.kind != tokenEnd {
		p.at++
	}
	return t
}

// accept takes the next token if it is one of the words or operators.
func (p *parser) accept(texts ...string) bool {
	if t := p.peek(); (t.kind == tokenWord || t.kind == tokenOperator) && slices.Contains(texts, t.text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) wrong(at token, format string, args ...any) *Error {
	return &Error{p.expression, at.offset, len(at.text), fmt.Sprintf(format, args...)}
}

// misplaced says what a token that should not be where it is might have been.
func (p *parser) misplaced(t token) string {
	switch {
	case t.kind == tokenEnd:
		return "something is missing at the end"
	case t.kind == tokenWord && nearest(t.text) != "" && nearest(t.text) != t.text:
		return fmt.Sprintf("%q is no word of the filter language here (%s?)", t.text, nearest(t.text))
	case t.text == ")":
		return "no parenthesis is open here"
	}
	return fmt.Sprintf("%q makes no sense here (between two conditions there is and, or)", t.text)
}

// conditions are joined by and and or, which bind equally, from left to right.
func (p *parser) conditions() (node, *Error) {
	left, wrong := p.condition()
	for wrong == nil {
		switch {
		case p.accept("and", "&&"):
			var right node
			right, wrong = p.condition()
			left = and{left, right}
		case p.accept("or", "||"):
			var right node
			right, wrong = p.condition()
			left = or{left, right}
		default:
			return left, nil
		}
	}
	return nil, wrong
}

func (p *parser) condition() (node, *Error) {
	if p.accept("not", "!") {
		return p.nest(func() (node, *Error) {
			n, wrong := p.condition()
			return not{n}, wrong
		})
	}
	if n, ok := p.relation(); ok {
		return n, nil
	}
	if p.accept("(") {
		return p.nest(p.parenthesis)
	}
	return p.primitive()
}

// nest reads what is one level deeper.
func (p *parser) nest(read func() (node, *Error)) (node, *Error) {
	if p.nested++; p.nested > maxNested {
		return nil, p.wrong(p.peek(), "more than %d parentheses and nots inside of each other", maxNested)
	}
	n, wrong := read()
	p.nested--
	return n, wrong
}

func (p *parser) parenthesis() (node, *Error) {
	open := p.tokens[p.at-1]
	n, wrong := p.conditions()
	if wrong != nil {
		return nil, wrong
	}
	if !p.accept(")") {
		if p.peek().kind == tokenEnd {
			return nil, p.wrong(open, "this parenthesis is not closed")
		}
		return nil, p.wrong(p.peek(), "%s", p.misplaced(p.peek()))
	}
	return n, nil
}

// relation reads a comparison of two values; false where there is none, with
// nothing taken. What is wrong inside of one is found by [parser.comparison].
func (p *parser) relation() (node, bool) {
	began := p.at
	n, wrong := p.comparison()
	if wrong != nil {
		p.at = began
		return nil, false
	}
	return n, true
}

func (p *parser) comparison() (node, *Error) {
	left, guards, wrong := p.value(0)
	if wrong != nil {
		return nil, wrong
	}
	tests := map[string]bpf.JumpTest{
		"=": bpf.JumpEqual, "==": bpf.JumpEqual, "!=": bpf.JumpNotEqual,
		">": bpf.JumpGreaterThan, "<": bpf.JumpLessThan, ">=": bpf.JumpGreaterOrEqual, "<=": bpf.JumpLessOrEqual,
	}
	test, ok := tests[p.peek().text]
	if !ok {
		return nil, p.wrong(p.peek(), "a value is compared by = != < > <= or >=")
	}
	p.take()
	right, more, wrong := p.value(0)
	if wrong != nil {
		return nil, wrong
	}
	r := relation{test, left, right}
	if depth(left) >= maxDepth || depth(right)+1 >= maxDepth {
		return nil, p.wrong(p.peek(), "too many parentheses inside of each other")
	}
	n := node(r)
	for _, g := range slices.Backward(append(guards, more...)) {
		n = and{g, n}
	}
	return n, nil
}

// levels are the operators, the weaker before the stronger.
func levels() [][]string {
	return [][]string{{"|", "^"}, {"&"}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"}}
}

func calculations() map[string]bpf.ALUOp {
	return map[string]bpf.ALUOp{
		"|": bpf.ALUOpOr, "^": bpf.ALUOpXor, "&": bpf.ALUOpAnd, "<<": bpf.ALUOpShiftLeft, ">>": bpf.ALUOpShiftRight,
		"+": bpf.ALUOpAdd, "-": bpf.ALUOpSub, "*": bpf.ALUOpMul, "/": bpf.ALUOpDiv, "%": bpf.ALUOpMod,
	}
}

// value reads a value whose operators are of a level or stronger. Its guards are
// what must hold for it to have a meaning.
func (p *parser) value(level int) (value, []node, *Error) {
	all := levels()
	if level == len(all) {
		return p.operand()
	}
	left, guards, wrong := p.value(level + 1)
	for wrong == nil {
		op := p.peek()
		if op.kind != tokenOperator || !slices.Contains(all[level], op.text) {
			return left, guards, nil
		}
		p.take()
		var right value
		var more []node
		if right, more, wrong = p.value(level + 1); wrong != nil {
			break
		}
		guards = append(guards, more...)
		var why string
		if left, why = fold(calculations()[op.text], left, right); why != "" {
			return nil, nil, p.wrong(op, "%s", why)
		}
	}
	return nil, nil, wrong
}

func (p *parser) operand() (value, []node, *Error) {
	t := p.take()
	switch {
	case t.kind == tokenOperator && (t.text == "(" || t.text == "-"):
		if p.nested++; p.nested > maxNested {
			return nil, nil, p.wrong(t, "more than %d parentheses inside of each other", maxNested)
		}
		defer func() { p.nested-- }()
		if t.text == "-" {
			v, guards, wrong := p.operand()
			if wrong != nil {
				return nil, nil, wrong
			}
			v, _ = fold(bpf.ALUOpSub, number(0), v)
			return v, guards, nil
		}
		v, guards, wrong := p.value(0)
		if wrong == nil && !p.accept(")") {
			wrong = p.wrong(t, "this parenthesis is not closed")
		}
		return v, guards, wrong
	case t.kind != tokenWord:
		return nil, nil, p.wrong(t, "a number is missing here")
	case t.text == "len":
		return length{}, nil, nil
	}
	if n, ok := constants()[t.text]; ok {
		return n, nil, nil
	}
	if n, err := strconv.ParseUint(t.text, 0, 32); err == nil {
		return number(n), nil, nil
	}
	if p.accept("[") {
		return p.bytes(t)
	}
	return nil, nil, p.wrong(t, "%q is no number", t.text)
}

// bytes reads what is in the brackets behind a protocol: an offset, and a size
// where that is not 1.
func (p *parser) bytes(of token) (value, []node, *Error) {
	a, guards, wrong := p.header(of)
	if wrong != nil {
		return nil, nil, wrong
	}
	offset, inside, wrong := p.value(0)
	if wrong != nil {
		return nil, nil, wrong
	}
	a.offset, a.size = offset, 1
	if p.accept(":") {
		size := p.take()
		n, err := strconv.Atoi(size.text)
		if err != nil || n != 1 && n != 2 && n != 4 {
			return nil, nil, p.wrong(size, "bytes are looked at 1, 2 or 4 at once")
		}
		a.size = n
	}
	if !p.accept("]") {
		return nil, nil, p.wrong(p.peek(), "] is missing here")
	}
	return a, append(inside, guards...), nil
}
