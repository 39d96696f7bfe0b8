//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// What a user waits for an answer before he calls it a failure.
const (
	connectionPatience = 3 * time.Second
	queryPatience      = 300 * time.Millisecond
)

// load is what one client does, from one pod or node, until its stdin is closed.
type load struct {
	// HTTP is asked on a new connection Rate times a second.
	HTTP string
	Rate int
	// Echo gets Kept connections that are kept, with a ping each Pause.
	Echo  string
	Kept  int
	Pause time.Duration
	// Silence is how long a ping may go unanswered.
	Silence time.Duration
	// DNS is asked for Name each Pause.
	DNS, Name string

	mu     sync.Mutex
	report loadReport
}

// loadReport is what a client saw.
type loadReport struct {
	Opened, Pings, Queries int
	// Failures are the connections, pings and queries that failed: one that is
	// kept fails once.
	Failures []loadFailure
	// LongestOpened is the longest from a connection's begin to its answer.
	LongestOpened, LongestPing time.Duration
	// Served are the backends that answered new connections, by their hostname.
	Served map[string]served
}

// loadFailure is one thing that failed.
type loadFailure struct {
	Began time.Time
	Took  time.Duration
	What  string
}

func (f loadFailure) String() string {
	return fmt.Sprintf("%s, after %s: %s", f.Began.Format("15:04:05.000"), f.Took.Round(time.Millisecond), f.What)
}

// served is what one backend got.
type served struct {
	Connections int
	// Last is when the last of them began.
	Last time.Time
}

// loadMain is the command labload: a client, or with -serve a server that
// answers each byte with itself.
func loadMain() {
	l := &load{report: loadReport{Served: map[string]served{}}}
	serve := flag.String("serve", "", "echo on this address")
	flag.StringVar(&l.HTTP, "http", "", "address to open connections to")
	flag.IntVar(&l.Rate, "rate", 75, "connections a second")
	flag.StringVar(&l.Echo, "echo", "", "address to keep connections to")
	flag.IntVar(&l.Kept, "kept", 4, "connections to keep")
	flag.DurationVar(&l.Silence, "silence", 2*connectionPatience, "that a kept connection may last through")
	flag.DurationVar(&l.Pause, "pause", 20*time.Millisecond, "between pings, and between queries")
	flag.StringVar(&l.DNS, "dns", "", "name server")
	flag.StringVar(&l.Name, "name", "", "name to ask for")
	flag.Parse()
	if *serve != "" {
		fmt.Fprintln(os.Stderr, echo(*serve))
		os.Exit(1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what matters
		cancel()
	}()
	l.run(ctx)
	if err := json.NewEncoder(os.Stdout).Encode(l.report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echo(address string) error {
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	for {
		c, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

func (l *load) run(ctx context.Context) {
	var all sync.WaitGroup
	if l.HTTP != "" {
		const workers = 5 // so that one that waits does not hold up the others
		for range workers {
			all.Go(func() { every(ctx, time.Second*workers/time.Duration(l.Rate), l.open) })
		}
	}
	if l.Echo != "" {
		for range l.Kept {
			all.Go(func() { l.keep(ctx) })
		}
	}
	if l.DNS != "" {
		all.Go(func() { every(ctx, l.Pause, l.query) })
	}
	fmt.Println("started")
	all.Wait()
}

func every(ctx context.Context, pause time.Duration, do func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func (l *load) failed(began time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Failures = append(l.report.Failures, loadFailure{began, time.Since(began), err.Error()})
}

// open makes one connection, asks, and notes who answered.
func (l *load) open() {
	began := time.Now()
	host, err := ask(l.HTTP)
	took := time.Since(began)
	if err != nil {
		l.failed(began, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Opened++
	l.report.LongestOpened = max(l.report.LongestOpened, took)
	s := l.report.Served[host]
	s.Connections++
	if began.After(s.Last) {
		s.Last = began
	}
	l.report.Served[host] = s
}

func ask(address string) (host string, err error) {
	c, err := net.DialTimeout("tcp4", address, connectionPatience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	from := c.LocalAddr().String()
	_ = c.SetDeadline(time.Now().Add(connectionPatience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n"); err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	for lines := bufio.NewScanner(c); ; {
		if !lines.Scan() {
			return "", fmt.Errorf("%s: the answer ended early: %w", from, errors.Join(lines.Err(), io.ErrUnexpectedEOF))
		}
		if name, found := strings.CutPrefix(lines.Text(), "Hostname: "); found {
			host = strings.TrimSpace(name)
			_, err = io.Copy(io.Discard, c)
			return host, err
		}
	}
}

// keep opens a connection and pings on it until ctx ends or it breaks.
func (l *load) keep(ctx context.Context) {
	began := time.Now()
	c, err := net.DialTimeout("tcp4", l.Echo, connectionPatience)
	if err != nil {
		l.failed(began, err)
		return
	}
	defer c.Close()
	broken := false
	every(ctx, l.Pause, func() {
		if broken {
			return
		}
		began := time.Now()
		_ = c.SetDeadline(began.Add(l.Silence))
		if err := ping(c, uint64(began.UnixNano())); err != nil {
			broken = true
			l.failed(began, fmt.Errorf("a kept connection: %s: %w", c.LocalAddr(), err))
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.report.Pings++
		l.report.LongestPing = max(l.report.LongestPing, time.Since(began))
	})
}

func ping(c net.Conn, number uint64) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], number)
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(b[:]); got != number {
		return fmt.Errorf("another's answer: %d, want %d", got, number)
	}
	return nil
}

func (l *load) query() {
	began := time.Now()
	client := dns.Client{Timeout: queryPatience}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(l.Name, dns.TypeA), l.DNS)
	if err == nil && (answer.Rcode != dns.RcodeSuccess || len(answer.Answer) == 0) {
		err = fmt.Errorf("%s: %s, %d answers", l.Name, dns.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	if err != nil {
		l.failed(began, err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report.Queries++
}
