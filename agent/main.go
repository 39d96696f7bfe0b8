//go:build linux

// Command agent holds one node of a lab: it keeps the node's routes in line
// with the state that labctl sends, and probes the network for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/daemon"
	"github.com/native-routing/labctl/agent/rtnl"
)

// version is set by the linker (-X main.version=…).
var version string

const usage = `usage:
  agent --run DIR --data DIR    serve the node (the socket is DIR/agent.sock)
  agent status --run DIR        how each object of the node stands [-o table|json]
  agent version                 which agent this is
`

// The exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) > 0 && args[0] == "status":
		err = status(args[1:], stdout, stderr)
	case len(args) > 0 && args[0] == "version":
		_, err = fmt.Fprintln(stdout, versionText())
	default:
		err = serve(args, stderr)
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, usage)
		return exitUsage
	case errors.Is(err, flag.ErrHelp):
		return exitUsage
	default:
		fmt.Fprintln(stderr, "agent:", err)
		return exitError
	}
}

var errUsage = errors.New("wrong usage")

// flags returns a set that answers a mistake with the usage text.
func flags(name string, stderr io.Writer) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() { fmt.Fprint(stderr, usage) }
	return set
}

func parse(set *flag.FlagSet, args []string) error {
	if err := set.Parse(args); err != nil {
		return flag.ErrHelp // told already
	}
	if set.NArg() > 0 {
		return errUsage
	}
	return nil
}

func serve(args []string, stderr io.Writer) error {
	var config daemon.Config
	set := flags("agent", stderr)
	set.StringVar(&config.RunDir, "run", "", "directory of the socket and the lock")
	set.StringVar(&config.DataDir, "data", "", "directory of the desired state")
	if err := parse(set, args); err != nil {
		return err
	}
	if config.RunDir == "" || config.DataDir == "" {
		return errUsage
	}
	frugal()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// The terminal that started the lab may close, and so may the log's reader.
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	config.Sysctls = rtnl.ProcSys{}
	config.Version = ownAPIVersion
	config.Log = slog.New(slog.NewTextHandler(stderr, nil))
	return daemon.Run(ctx, config)
}

// frugal keeps one agent of many on a machine small: what it does is short and
// rare, so a collection more costs less than memory that stays.
func frugal() {
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(25)
}

func versionText() string {
	v := ownAPIVersion()
	return fmt.Sprintf("%s (%s)", v.Version, runtime.Version())
}
