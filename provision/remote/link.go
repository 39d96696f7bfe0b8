package remote

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// link is one connection, from its login until it breaks.
type link struct {
	ssh  *ssh.Client
	wire *wire
	done chan struct{} // closed when the connection is no more

	mu    sync.Mutex
	cause error // why; set before done is closed
}

func newLink(c Config, w *wire, client *ssh.Client) *link {
	l := &link{ssh: client, wire: w, done: make(chan struct{})}
	go func() {
		err := client.Wait()
		l.fail(fmt.Errorf("%w: %w", ErrLost, err))
		close(l.done)
	}()
	go l.watch(c.KeepAlive, c.Silence)
	return l
}

// fail closes the connection; the first cause is the one that counts.
func (l *link) fail(cause error) {
	l.mu.Lock()
	if l.cause == nil {
		l.cause = cause
	}
	l.mu.Unlock()
	l.wire.Close()
}

// err is why the connection broke; nil while it has not.
func (l *link) err() error {
	select {
	case <-l.done:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.cause
	default:
		return nil
	}
}

// lost is why what was read may not be all; nil while the connection stands.
func (l *link) lost() error {
	if l.wire.broken.Load() {
		<-l.done // follows at once
	}
	return l.err()
}

// watch asks a silent peer whether it is there. Anything that comes is an answer.
func (l *link) watch(interval, silence time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	var asked time.Time // zero while nothing is asked
	for {
		select {
		case <-l.done:
			return
		case <-answered:
			asked = time.Time{}
		case <-tick.C:
			quiet := l.wire.silence()
			// A machine that slept has heard nothing either: the question counts.
			if !asked.IsZero() && min(quiet, time.Since(asked)) > silence {
				l.fail(fmt.Errorf("%w: %w: nothing was heard for %s", ErrLost, ErrTimeout, quiet.Round(time.Second/10)))
				return
			}
			if asked.IsZero() && quiet >= interval {
				asked = time.Now()
				go func() {
					// Also a refusal is an answer, and a broken connection closes done.
					_, _, _ = l.ssh.SendRequest("keepalive@openssh.com", true, nil)
					answered <- struct{}{}
				}()
			}
		}
	}
}

// open opens a channel. Where ctx ends first, the channel is closed when it comes.
func (l *link) open(ctx context.Context, kind string, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	result := make(chan opened, 1)
	go func() {
		channel, requests, err := l.ssh.OpenChannel(kind, payload)
		result <- opened{channel, requests, err}
	}()
	select {
	case o := <-result:
		return o.channel, o.requests, o.err
	case <-ctx.Done():
		go func() {
			if o := <-result; o.err == nil {
				go ssh.DiscardRequests(o.requests)
				o.channel.Close()
			}
		}()
		return nil, nil, ctx.Err()
	}
}
