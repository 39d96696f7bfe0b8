package api

import (
	"net/netip"
	"time"
)

// AnswerTime is how long a server may take that has been connected to.
const AnswerTime = 2 * time.Second

// FetchRequest opens connections from the node or its pods; all at once.
type FetchRequest struct {
	Targets []FetchTarget `json:"targets"`
}

// FetchTarget is a row of requests to one address.
type FetchTarget struct {
	// Pod is the key of the pod on this node that asks; empty for the node itself.
	Pod string `json:"pod,omitempty"`
	// Name is resolved with the asker's own resolver configuration; To is used
	// where it is empty.
	Name string     `json:"name,omitempty"`
	To   netip.Addr `json:"to,omitzero"`
	Port uint16     `json:"port"`
	// Protocol is http (GET /), tcp (connect and close) or dns (UDP; asks for the
	// A records of Path).
	Protocol string `json:"protocol"`
	Path     string `json:"path,omitempty"`
	// Count requests are made, each on a connection of its own, Parallel at once
	// (1 where it is 0). Timeout is for each to be connected, or to have the
	// answer of a name server; a connection that stands has another AnswerTime,
	// for then it is a busy program that is waited for, and not a lost packet.
	Count    int           `json:"count"`
	Parallel int           `json:"parallel,omitempty"`
	Timeout  time.Duration `json:"timeout"`
}

// FetchResponse has one result for each target, in the same order.
type FetchResponse struct {
	Results []FetchResult `json:"results"`
}

// FetchResult is what came of a row of requests, in order.
type FetchResult struct {
	// Resolved is the address that was asked.
	Resolved netip.Addr     `json:"resolved,omitzero"`
	Attempts []FetchAttempt `json:"attempts"`
}

// FetchAttempt is one request and its answer.
type FetchAttempt struct {
	// Peer is what the socket says it is connected to, which after reverse
	// translation is the address that was asked. Local is its own end.
	Peer  netip.AddrPort `json:"peer,omitzero"`
	Local netip.AddrPort `json:"local,omitzero"`
	// Status is HTTP's. Hostname and RemoteAddr are what whoami answers: the pod
	// that served, and the client's address as the pod saw it. The lab's router
	// tells the latter in a header of that name.
	Status     int            `json:"status,omitempty"`
	Hostname   string         `json:"hostname,omitempty"`
	RemoteAddr netip.AddrPort `json:"remoteAddr,omitzero"`
	Addresses  []netip.Addr   `json:"addresses,omitempty"` // of a dns answer
	Took       time.Duration  `json:"took"`
	// Error is a class: timeout, refused, unreachable, resolve, protocol or
	// other; Message is its text. Both are empty where all went well.
	Error   string `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
}
