// Package api is what crosses the agent's unix socket: HTTP and JSON, each
// operation defined once, so that the server handles and the client calls the
// same value. It imports nothing of the module.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxBody bounds a request or an answer, in bytes: ten thousand routes take about 2 MiB.
const maxBody = 64 << 20

// None is the request or the response of an operation that has none.
type None struct{}

// Endpoint is one operation. Its request and response travel as JSON bodies.
type Endpoint[Request, Response any] struct {
	Method string
	Path   string
}

// The operations of an agent.
var (
	GetVersion   = Endpoint[None, Version]{http.MethodGet, "/v1/version"}
	GetClock     = Endpoint[None, Clock]{http.MethodGet, "/v1/clock"}
	PutState     = Endpoint[State, Applied]{http.MethodPut, "/v1/state"}
	GetStatus    = Endpoint[None, Status]{http.MethodGet, "/v1/status"}
	GetTables    = Endpoint[None, Tables]{http.MethodGet, "/v1/tables"}
	GetSnapshot  = Endpoint[SnapshotRequest, Snapshot]{http.MethodPost, "/v1/snapshot"}
	LookupPaths  = Endpoint[PathRequest, PathResponse]{http.MethodPost, "/v1/paths"}
	LookupRoutes = Endpoint[LookupRequest, LookupResponse]{http.MethodPost, "/v1/lookup"}
	Ping         = Endpoint[PingRequest, PingResponse]{http.MethodPost, "/v1/ping"}
	Knock        = Endpoint[KnockRequest, KnockResponse]{http.MethodPost, "/v1/knock"}
	Trace        = Endpoint[TraceRequest, TraceResponse]{http.MethodPost, "/v1/trace"}
	StartWitness = Endpoint[WitnessRequest, None]{http.MethodPost, "/v1/witness/start"}
	StopWitness  = Endpoint[WitnessRequest, WitnessResponse]{http.MethodPost, "/v1/witness/stop"}
	GetPods      = Endpoint[None, PodList]{http.MethodGet, "/v1/pods"}
	GetServices  = Endpoint[None, ServiceTable]{http.MethodGet, "/v1/services"}
	GetMaps      = Endpoint[None, Maps]{http.MethodGet, "/v1/maps"}
	GetDrops     = Endpoint[None, DropCounts]{http.MethodGet, "/v1/drops"}
	Fetch        = Endpoint[FetchRequest, FetchResponse]{http.MethodPost, "/v1/fetch"}
)

// Client calls the agent at the other end of a connection.
type Client struct {
	http *http.Client
}

// NewClient returns a client whose connections come from dial. It keeps them
// open for the next call; Close ends them.
func NewClient(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}
}

// NewMultiplexedClient returns a client that carries all calls over one
// connection, by HTTP/2: for an agent to which each connection is dear, as where
// it takes a session of an SSH connection, of which sshd grants ten.
func NewMultiplexedClient(dial func(context.Context) (net.Conn, error)) *Client {
	c := NewClient(dial)
	transport := c.http.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	transport.MaxConnsPerHost = 1
	return c
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call sends request and waits for the answer. An error that the agent answers
// is an [*Error]; any other means that there was no answer, and the operation
// may or may not have been carried out.
func (e Endpoint[Request, Response]) Call(ctx context.Context, c *Client, request Request) (Response, error) {
	var response Response
	body, err := json.Marshal(request)
	if err != nil {
		return response, fmt.Errorf("encode %s: %w", e.Path, err)
	}
	req, err := http.NewRequestWithContext(ctx, e.Method, "http://agent"+e.Path, bytes.NewReader(body))
	if err != nil {
		return response, err
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return response, fmt.Errorf("call the agent: %w", err)
	}
	defer answer.Body.Close()
	dec := json.NewDecoder(io.LimitReader(answer.Body, maxBody))
	if answer.StatusCode != http.StatusOK {
		failure := new(Error)
		if err := dec.Decode(failure); err != nil {
			return response, fmt.Errorf("call the agent: %s %s: %s", e.Method, e.Path, answer.Status)
		}
		return response, failure
	}
	if err := dec.Decode(&response); err != nil {
		return response, fmt.Errorf("decode the agent's answer to %s: %w", e.Path, err)
	}
	return response, nil
}

// Handle lets do answer the operation on mux. Unknown fields of a request are
// refused, so that an old agent never half-understands a new labctl.
func (e Endpoint[Request, Response]) Handle(mux *http.ServeMux, do func(context.Context, Request) (Response, error)) {
	mux.HandleFunc(e.Method+" "+e.Path, func(w http.ResponseWriter, r *http.Request) {
		var request Request
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&request); err != nil && !errors.Is(err, io.EOF) {
			writeError(w, &Error{Code: CodeInvalid, Message: "decode the request: " + err.Error()})
			return
		}
		response, err := do(r.Context(), request)
		if err != nil {
			WriteError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(response) // the caller has gone: nobody is left to tell
	})
}

func writeError(w http.ResponseWriter, failure *Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(failure.Code.status())
	_ = json.NewEncoder(w).Encode(failure)
}
