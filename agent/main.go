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
	"github.com/native-routing/labctl/agent/dbg"
	"github.com/native-routing/labctl/agent/join"
	"github.com/native-routing/labctl/agent/pod"
	"github.com/native-routing/labctl/agent/rtnl"
)

// version is set by the linker (-X main.version=…).
var version string

const usage = `usage:
  agent --run DIR --data DIR --bpf DIR --cgroup DIR
                                serve the node (the socket is in the first)
  agent status --run DIR        how each object of the node stands [-o table|json]
  agent dbg --run DIR --data DIR --bpf DIR COMMAND...
                                services, maps, connections and events, as cilium-dbg shows them
  agent exec --data DIR NAMESPACE/POD [-- COMMAND...]
                                a command or a shell in a pod
  agent join SOCKET             standard input and output, joined to a unix socket
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
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "status":
		err = status(args[1:], stdout, stderr)
	case "sandbox":
		return pod.SandboxMain(args[1:], stdout, stderr)
	case "exec":
		return pod.ExecMain(args[1:], os.Stdin, stdout, stderr)
	case "dbg":
		return debugged(args[1:], stdout, stderr)
	case "join":
		if len(args) != 2 {
			err = errUsage
			break
		}
		err = join.Socket(args[1], os.Stdin, stdout)
	case "version":
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
	set.StringVar(&config.DataDir, "data", "", "directory of the desired state and of pods")
	set.StringVar(&config.BPFDir, "bpf", "", "directory of the pins, in a BPF file system")
	set.StringVar(&config.Cgroup, "cgroup", "", "directory of the node in a cgroup2 hierarchy; empty for none")
	if err := parse(set, args); err != nil {
		return err
	}
	if config.RunDir == "" || config.DataDir == "" || config.BPFDir == "" {
		return errUsage
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the own executable: %w", err)
	}
	config.Executable = executable
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

// debugged is `agent dbg`.
func debugged(args []string, stdout, stderr io.Writer) int {
	var config dbg.Config
	set := flags("agent dbg", stderr)
	set.StringVar(&config.RunDir, "run", "", "the agent's run directory")
	set.StringVar(&config.DataDir, "data", "", "the agent's data directory")
	set.StringVar(&config.PinDir, "bpf", "", "the agent's directory of pins")
	if set.Parse(args) != nil {
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	return dbg.Main(ctx, config, set.Args(), stdout, stderr)
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
