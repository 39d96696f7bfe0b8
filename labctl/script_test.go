//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"labctl": main, "labload": loadMain})
}

// TestScripts runs labctl as a user does, on real namespaces. Each script has a
// lab of its own: its name, its state, and its sockets.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Setup:               ownLab,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab":    writeLab,
			"absent": absent,
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

var labs atomic.Int32

// ownLab gives a script directories that are short enough for unix sockets, and
// takes down whatever lab it leaves behind.
func ownLab(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("t%d-%d", os.Getpid(), labs.Add(1))
	env.Setenv("LAB", name)
	env.Setenv("LABCTL_DATA_DIR", filepath.Join(dir, "data"))
	env.Setenv("LABCTL_RUN_DIR", filepath.Join(dir, "run"))
	env.Defer(func() { _ = os.RemoveAll(dir) })
	env.Defer(func() { takeDown(name, dir) })
	return nil
}

// writeLab is "lab FILE [TOPOLOGY]": a copy of a shipped topology under the
// script's own name.
func writeLab(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 2 {
		ts.Fatalf("usage: lab FILE [TOPOLOGY]")
	}
	shipped := "native-routing"
	if len(args) == 2 {
		shipped = args[1]
	}
	ts.Check(copyLab(shipped, ts.Getenv("LAB"), ts.MkAbs(args[0])))
}

// absent fails where anything of the script's lab is left on the machine.
func absent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: absent")
	}
	if left := leftOf(ts.Getenv("LAB"), filepath.Dir(ts.Getenv("LABCTL_DATA_DIR"))); len(left) > 0 {
		ts.Fatalf("left behind: %s", strings.Join(left, ", "))
	}
}
