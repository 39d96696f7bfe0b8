// Package cli is labctl's command line: one file for each command, each a
// struct of flags and one call into the core.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/provision/netns"
	"github.com/native-routing/labctl/topologies/topo"
)

// The exit codes of labctl, beside those of a command that exec runs.
const (
	exitOK      = 0
	exitTrouble = 1 // it could not be done, or could not be told
	exitUsage   = 2 // wrong usage, or a bad topology
	exitFailed  = 3 // done, and a check failed
)

// Program is what labctl runs in.
type Program struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string
	// HandOver leaves the terminal's interrupts to a command that is run on a node.
	HandOver func()
}

// Run carries out one command line and returns its exit code.
func Run(ctx context.Context, p Program, args []string) int {
	root := newRoot(&app{Program: p})
	root.SetArgs(args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if text := message(err); text != "" {
		fmt.Fprintln(p.Err, text)
	}
	return exitCode(err)
}

// errFailed is a look at the lab that found something amiss; its report says all.
var errFailed = errors.New("")

// errInterrupted is an up or a down that was asked to stop.
var errInterrupted = errors.New("interrupted (labctl up goes on from here, and labctl down removes what there is)")

// resumable says of an interrupted change how to go on.
func resumable(err error) error {
	if errors.Is(err, context.Canceled) {
		return errInterrupted
	}
	return err
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func exitCode(err error) int {
	var usage usageError
	var mistakes topo.Errors
	var exit *provision.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.As(err, &usage), errors.As(err, &mistakes), errors.Is(err, topo.ErrInvalid), errors.Is(err, lesson.ErrInvalid),
		errors.Is(err, manifest.ErrInvalid), errors.Is(err, workload.ErrRefused):
		return exitUsage
	}
	return exitTrouble
}

// message is an error as a user reads it; empty where all was said already.
func message(err error) string {
	var mistakes topo.Errors
	if _, ran := err.(*provision.ExitError); ran {
		return "" // the command on the node has said what it had to say
	}
	switch {
	case errors.Is(err, errFailed):
		return ""
	case errors.As(err, &mistakes), errors.Is(err, lesson.ErrInvalid):
		return err.Error()
	case errors.Is(err, context.Canceled):
		return "labctl: interrupted"
	}
	return "labctl: " + err.Error()
}

// app is what all commands share.
type app struct {
	Program
	lab      string
	provider string
	// virtualizer is what runs the VMs of a new lab, in place of the topology's choice.
	virtualizer string
	hostOnly    bool
	dataDir     string
	runDir      string
	quiet       bool
	// say puts sentences into the student's language.
	say lang.Printer
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "labctl",
		Short:         "A lab for native routing: bring it up, look into it, verify it",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := root.PersistentFlags()
	f.StringVar(&a.lab, "lab", a.Getenv("LABCTL_LAB"), "the lab, where several are up (LABCTL_LAB)")
	f.StringVar(&a.provider, "provider", "", "what a new lab stands on: "+strings.Join(providerNames(), ", ")+" (default "+netns.Name+")")
	f.StringVar(&a.dataDir, "data-dir", cmp.Or(a.Getenv("LABCTL_DATA_DIR"), defaultDataDir()), "where labctl keeps its state (LABCTL_DATA_DIR)")
	f.StringVar(&a.runDir, "run-dir", cmp.Or(a.Getenv("LABCTL_RUN_DIR"), "/run/labctl"), "where the nodes' namespaces and sockets are (LABCTL_RUN_DIR)")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "say nothing of what is under way")
	a.addLanguage(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	for _, c := range []func(*app) *cobra.Command{
		newUp, newDown, newHalt, newStart, newStatus, newStage, newReset, newLesson,
		newVerify, newExplain, newCapture, newParity, newGet, newApply, newDelete,
		newExec, newSSH, newSSHConfig, newDbg, newDoctor, newTopology, newVersion,
	} {
		root.AddCommand(c(a))
	}
	usageErrors(root)
	return root
}

// usageErrors marks what a command's arguments are wrong about as wrong usage.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(check(cmd, args), cmd.ValidateFlagGroups()); err != nil {
				return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// defaultDataDir is the system's for root, and the user's own otherwise.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/labctl"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "labctl-data"
	}
	return filepath.Join(dir, "labctl")
}

// story returns the progress of a long command, told to stderr.
func (a *app) story() *ui.Progress { return ui.Auto(a.Err, a.quiet) }

// storyOf lets the core tell its story to a ui.Progress.
type storyOf struct{ *ui.Progress }

func (s storyOf) Start(step string) lab.Step { return s.Progress.Start(step) }
