// Command labctl brings up the network lab of a study on native routing, shows
// what every packet does in it, and checks it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/native-routing/labctl/labctl/cli"
)

// version is set when a release is built: -ldflags "-X main.version=1.2.3".
var version = "0.1.0-dev"

func main() {
	ctx, interrupts := interruptible()
	os.Exit(cli.Run(ctx, cli.Program{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: os.Getenv, Version: version, HandOver: interrupts.handOver,
	}, os.Args[1:]))
}

// interrupts turns signals into the end of a context: the first asks the work
// to stop where it can be taken up again, the second ends the program at once.
type interrupts struct {
	signals chan os.Signal
	handed  chan struct{}
}

func interruptible() (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(context.Background())
	i := &interrupts{signals: make(chan os.Signal, 2), handed: make(chan struct{})}
	signal.Notify(i.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for n := 0; ; {
			s := <-i.signals
			select {
			case <-i.handed:
				if s == os.Interrupt {
					continue // the command on the terminal gets it too, and decides
				}
			default:
			}
			if n++; n > 1 {
				os.Exit(130)
			}
			cancel()
		}
	}()
	return ctx, i
}

// handOver leaves the terminal's interrupts to a command that labctl runs there.
func (i *interrupts) handOver() { close(i.handed) }
