//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// kernel knows when the kernel has done away with namespaces that were let go.
// It does so later, in batches, one after the other.
type kernel struct {
	ns     *os.File // a namespace of the bench's own
	socket int      // into it
}

func watchKernel() (*kernel, error) {
	k := &kernel{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a namespace: %w", err)
		}
		if err := noIPv6(); err != nil {
			return err
		}
		if k.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		k.socket, err = openRtnetlink()
		return err
	})
	return k, err
}

func (k *kernel) close() {
	unix.Close(k.socket)
	k.ns.Close()
}

const (
	sentinelIndex = 99
	sentinelPoll  = 500 * time.Microsecond
)

// settle waits until every namespace that was let go before is gone. It lets
// one of its own go, which holds one end of a veth: when the other end vanishes,
// the batch is on its way. That of the second begins when the first's is done.
func (k *kernel) settle(ctx context.Context) error {
	for range 2 {
		if err := k.sentinel(); err != nil {
			return fmt.Errorf("let a namespace go: %w", err)
		}
		for k.linkExists(sentinelIndex) {
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(sentinelPoll)
		}
	}
	return nil
}

// sentinel makes a namespace that holds one end of a veth, and ends with its thread.
func (k *kernel) sentinel() error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		socket, err := openRtnetlink()
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		var b batch
		b.pair(floorLink{name: "sentinel", index: sentinelIndex, mtu: defaultMTU, mac: [6]byte{0x02}, port: sentinelIndex,
			portMTU: defaultMTU, portName: "sentinel"}, int(k.ns.Fd()))
		return b.send(socket)
	})
}

func (k *kernel) linkExists(index int) bool {
	var b batch
	b.request(unix.RTM_SETLINK, 0, linkHeader(index, false))
	return !errors.Is(b.send(k.socket), unix.ENODEV)
}

// aloneKind is the kind of link that stands for dummy on this machine.
func aloneKind() (string, error) {
	kind := "dummy"
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a namespace: %w", err)
		}
		socket, err := openRtnetlink()
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		var b batch
		b.alone(floorLink{name: "try", index: sentinelIndex, kind: kind, mtu: defaultMTU, mac: [6]byte{0x02}})
		if err := b.send(socket); errors.Is(err, unix.EOPNOTSUPP) {
			kind = "ifb"
			return nil
		} else {
			return err
		}
	})
	return kind, err
}
