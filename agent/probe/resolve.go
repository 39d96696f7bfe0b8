//go:build linux

package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

const (
	// queryTries are the datagrams that one question is asked with, spread
	// evenly over the time there is.
	queryTries = 3
	// answerSize is the largest DNS answer that is asked for, in bytes: what
	// fits a packet anywhere (the DNS flag day's recommendation).
	answerSize = 1232
)

// noName means that the server knows no address of the name.
func noName() error { return &failure{classResolve, "no such name"} }

// candidates are the names that resolv.conf's rules make of one, in the order in
// which they are asked for (resolv.conf(5)).
func (r Resolver) candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var names []string
	for _, domain := range r.Search {
		names = append(names, dns.Fqdn(name+"."+domain))
	}
	if strings.Count(name, ".") >= r.Dots {
		return append([]string{dns.Fqdn(name)}, names...)
	}
	return append(names, dns.Fqdn(name))
}

// resolve asks the resolver's server, from the room, for a name's IPv4
// addresses. Whatever goes wrong is of the class resolve.
func (r *room) resolve(ctx context.Context, resolver Resolver, name string) ([]netip.Addr, error) {
	if !resolver.Server.IsValid() {
		return nil, &failure{classResolve, fmt.Sprintf("%s: no name server", name)}
	}
	c, err := r.connect(ctx, unix.SOCK_DGRAM, resolver.Server)
	if err == nil {
		defer c.close()
		var addresses []netip.Addr
		if addresses, err = c.resolve(ctx, resolver, name); err == nil {
			return addresses, nil
		}
	}
	return nil, &failure{classResolve, fmt.Sprintf("%s: %s (asked %s)", name, describe(err), resolver.Server)}
}

// resolve asks for each candidate until there is one. An answer that there is
// none is of the class resolve; no answer is whatever hinders it.
func (c *connection) resolve(ctx context.Context, resolver Resolver, name string) ([]netip.Addr, error) {
	var last error
	for _, candidate := range resolver.candidates(name) {
		addresses, err := c.query(ctx, candidate)
		if err == nil {
			return addresses, nil
		}
		var answered *failure
		if !errors.As(err, &answered) {
			return nil, err
		}
		last = err
	}
	return nil, last
}

// query asks for the A records of a name that is complete.
func (c *connection) query(ctx context.Context, name string) ([]netip.Addr, error) {
	question := new(dns.Msg).SetQuestion(name, dns.TypeA)
	question.SetEdns0(answerSize, false)
	packet, err := question.Pack()
	if err != nil {
		return nil, fmt.Errorf("ask for %s: %w", name, err)
	}
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(5 * time.Second) // resolv.conf(5)'s default
	}
	step := time.Until(end) / queryTries
	for try := range queryTries {
		if _, err := c.Write(packet); err != nil {
			return nil, err
		}
		until := end
		if try+1 < queryTries {
			until = time.Now().Add(step)
		}
		if err := c.SetReadDeadline(until); err != nil || ctx.Err() != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		answer, err := c.answer(question.Id)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return addressesOf(answer)
	}
	return nil, os.ErrDeadlineExceeded
}

// answer reads until the answer to a question arrives; what else comes is not looked at.
func (c *connection) answer(id uint16) (*dns.Msg, error) {
	buffer := make([]byte, answerSize)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return nil, err
		}
		m := new(dns.Msg)
		if m.Unpack(buffer[:n]) == nil && m.Id == id && m.Response {
			return m, nil
		}
	}
}

func addressesOf(m *dns.Msg) ([]netip.Addr, error) {
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return nil, noName()
	default:
		return nil, &failure{classResolve, "the name server answers " + dns.RcodeToString[m.Rcode]}
	}
	var addresses []netip.Addr
	for _, record := range m.Answer {
		if a, ok := record.(*dns.A); ok {
			if address, ok := netip.AddrFromSlice(a.A.To4()); ok {
				addresses = append(addresses, address)
			}
		}
	}
	if len(addresses) == 0 {
		return nil, noName() // it exists, with records of other types
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses, nil
}
