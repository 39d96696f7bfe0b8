//go:build linux

package peer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
)

// A datagram, numbers in network order:
//
//	magic     4 bytes
//	start, sequence, heard, digest, version    8 bytes each
//	part, parts    2 bytes each
//	from, to       1 byte of length, and the name
//	pods, until the end:
//	  state        1 byte
//	  uid          4 bytes
//	  shared, rest variable length each, and rest bytes: the key takes its first
//	               bytes from the key before, of which there is none at first
//	HMAC-SHA256 of all before it, 32 bytes
const (
	magic      = "LCP1"
	fixed      = len(magic) + 5*8 + 2*2
	signature  = sha256.Size
	keySize    = 32
	maxKeyText = 1024 // namespace, slash and name need 317
	// maxPayload is what is sent in one datagram, in bytes: with the headers of
	// UDP and IP it is 1400, which passes the links of a lab in one piece.
	maxPayload = 1400 - 28
	// roomForNames is kept free in each part for both nodes' names, in bytes.
	roomForNames = 2 * 64
	// maxParts bounds what is collected for one list.
	maxParts = 1024
)

// message is one datagram without its pods.
type message struct {
	from, to string
	// start names the sender's process and is higher in a later one; sequence
	// counts its datagrams.
	start, sequence uint64
	// heard is the highest start of the recipient that the sender knows, 0 for none.
	heard uint64
	// digest is of the pods that the sender's state has on the sender.
	digest uint64
	// version counts the sender's lists; part of parts is in this datagram. A
	// sender without a list has no parts.
	version     uint64
	part, parts uint16
}

// entry is one pod on the sender's node.
type entry struct {
	id    id
	state State
}

// id tells a pod from a later one of the same name.
type id struct {
	key string
	uid uint32
}

func idOf(key, uid string) id { return id{key, uint32(sum(uid))} }

// sum is FNV-1a, which every agent computes alike.
func sum(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

var wireStates = []State{Ready, NotReady, Terminating}

// split writes entries, sorted by key, into parts of at most room bytes. There
// is one part at least.
func split(entries []entry, room int) [][]byte {
	parts := [][]byte{nil}
	previous := ""
	for _, e := range entries {
		last := parts[len(parts)-1]
		with := appendEntry(last, e, previous)
		if len(with) > room && len(last) > 0 {
			with = appendEntry(nil, e, "")
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = with
		previous = e.id.key
	}
	return parts
}

func appendEntry(b []byte, e entry, previous string) []byte {
	shared := 0
	for shared < min(len(previous), len(e.id.key)) && previous[shared] == e.id.key[shared] {
		shared++
	}
	b = append(b, byte(slices.Index(wireStates, e.state)))
	b = binary.BigEndian.AppendUint32(b, e.id.uid)
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(e.id.key)-shared))
	return append(b, e.id.key[shared:]...)
}

// overhead is what a datagram takes beside its pods, in bytes.
func overhead(from, to string) int { return fixed + 2 + len(from) + len(to) + signature }

// seal writes a datagram with pods as split wrote them.
func (m message) seal(pods, key []byte) []byte {
	b := make([]byte, 0, overhead(m.from, m.to)+len(pods))
	b = append(b, magic...)
	for _, n := range []uint64{m.start, m.sequence, m.heard, m.digest, m.version} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = binary.BigEndian.AppendUint16(b, m.part)
	b = binary.BigEndian.AppendUint16(b, m.parts)
	for _, name := range []string{m.from, m.to} {
		b = append(b, byte(len(name)))
		b = append(b, name...)
	}
	b = append(b, pods...)
	return append(b, sign(b, key)...)
}

func sign(b, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write(b)
	return mac.Sum(nil)
}

var (
	errForeign   = errors.New("not a message of an agent")
	errSignature = errors.New("signed with another key")
	errMalformed = errors.New("malformed")
)

// open checks a datagram, and returns it with its pods still written.
func open(b, key []byte) (message, []byte, error) {
	if len(b) < fixed+2+signature || string(b[:len(magic)]) != magic {
		return message{}, nil, errForeign
	}
	body, signed := b[:len(b)-signature], b[len(b)-signature:]
	if !hmac.Equal(sign(body, key), signed) {
		return message{}, nil, errSignature
	}
	return parse(body)
}

// parse reads what open has found to be signed, or at least as long.
func parse(b []byte) (m message, pods []byte, err error) {
	b = b[len(magic):]
	for _, n := range []*uint64{&m.start, &m.sequence, &m.heard, &m.digest, &m.version} {
		*n, b = binary.BigEndian.Uint64(b), b[8:]
	}
	m.part, m.parts, b = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[4:]
	for _, name := range []*string{&m.from, &m.to} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return m, nil, errMalformed
		}
		end := 1 + int(b[0])
		*name, b = string(b[1:end]), b[end:]
	}
	if m.parts > maxParts || m.parts > 0 && m.part >= m.parts {
		return m, nil, errMalformed
	}
	return m, b, nil
}

// entriesOf reads the pods of one part.
func entriesOf(b []byte) ([]entry, error) {
	var entries []entry
	previous := ""
	for len(b) > 0 {
		if len(b) < 5 || int(b[0]) >= len(wireStates) {
			return nil, errMalformed
		}
		e := entry{state: wireStates[b[0]]}
		e.id.uid, b = binary.BigEndian.Uint32(b[1:]), b[5:]
		shared, n := binary.Uvarint(b)
		if n <= 0 || shared > uint64(len(previous)) {
			return nil, errMalformed
		}
		b = b[n:]
		rest, n := binary.Uvarint(b)
		if n <= 0 || rest > uint64(len(b)-n) || shared+rest > maxKeyText {
			return nil, errMalformed
		}
		e.id.key = previous[:shared] + string(b[n:n+int(rest)])
		b, previous = b[n+int(rest):], e.id.key
		entries = append(entries, e)
	}
	return entries, nil
}

func sortEntries(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int {
		if c := strings.Compare(a.id.key, b.id.key); c != 0 {
			return c
		}
		return int(int64(a.id.uid) - int64(b.id.uid))
	})
}
