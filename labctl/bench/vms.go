//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision/testbed"
)

// vmsCommand makes this executable measure VMs, in a test bed that it is in alone.
const vmsCommand = "vms"

// vmsGoal is for labctl's up with everything in it, and verify, against a bare
// vagrant up: what labctl does after the boot must hide behind the boots of others.
const vmsGoal = 1.05

// vmsRounds are few: each boots eight machines.
const vmsRounds = 2

// vmTimes are what the rounds measure, in seconds. Those of processors are how
// long all of them together were busy meanwhile, whoever kept them so: emulated
// machines leave none idle, so what is done on one is waited for by all.
type vmTimes struct {
	Bare, Up, Verify, Both, Down         samples
	BareProcessors, UpProcessors, unused samples
}

// measureVMs is left out where no box is there: it takes a minute to build, and
// a quarter of an hour to measure.
func measureVMs(ctx context.Context, r *rig) ([]Row, error) {
	const what = "up and verify on VMs"
	if why := testbed.Absent(); why != "" {
		return []Row{absent(what, why)}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self, vmsCommand, strconv.Itoa(min(r.rounds, vmsRounds)))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it tidies up
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	var times vmTimes
	if err := json.Unmarshal(out.Bytes(), &times); err != nil {
		return nil, err
	}
	const bareIs = "vagrant up of the same Vagrantfile"
	return []Row{
		timed(what, times.Both).against(times.Bare, bareIs).ratioAtMost(vmsGoal).of(vmNodes),
		timed("  up alone", times.Up).against(times.Bare, bareIs).of(vmNodes),
		timed("  processors busy for it", times.UpProcessors).against(times.BareProcessors, "the same for "+bareIs),
		timed("  verify alone", times.Verify),
		timed("down of VMs", times.Down).of(vmNodes),
	}, nil
}

// vmNodes is how many machines the shipped lab has.
const vmNodes = 4

// vmsMain is the process in the bed: it prints its times as JSON.
func vmsMain(args []string, stdout, stderr io.Writer) int {
	return testbed.Enter(func(bed testbed.Bed) int {
		if err := vmRounds(context.Background(), bed, args, stdout); err != nil {
			fmt.Fprintln(stderr, err)
			return exitTrouble
		}
		return exitOK
	})
}

func vmRounds(ctx context.Context, bed testbed.Bed, args []string, stdout io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want the number of rounds", vmsCommand)
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	file, err := bed.WriteLab(bed.Dir, vmsCommand)
	if err != nil {
		return err
	}
	var times vmTimes
	for range rounds {
		if err := vmRound(ctx, bed, file, &times); err != nil {
			return err
		}
	}
	return json.NewEncoder(stdout).Encode(times)
}

// vmRound is labctl's life of the lab, then Vagrant's alone with the Vagrantfile
// that labctl wrote.
func vmRound(ctx context.Context, bed testbed.Bed, file string, times *vmTimes) error {
	labctl, err := filepath.Abs(command)
	if err != nil {
		return err
	}
	data, bare := filepath.Join(bed.Dir, "data"), filepath.Join(bed.Dir, "bare")
	in := func(dir string, into, processors *samples, argv ...string) error {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LABCTL_LAB="+vmsCommand, "LABCTL_DATA_DIR="+data, "LABCTL_RUN_DIR="+filepath.Join(bed.Dir, "run"))
		start := time.Now()
		before, err := processorTime()
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
		into.took(start)
		after, err := processorTime()
		*processors = append(*processors, after-before)
		return err
	}
	if err := in(bed.Dir, &times.Up, &times.UpProcessors, labctl, "up", file, "--provider", "vagrant"); err != nil {
		return err
	}
	if err := in(bed.Dir, &times.Verify, &times.unused, labctl, "verify"); err != nil {
		return err
	}
	last := len(times.Up) - 1
	times.Both = append(times.Both, times.Up[last]+times.Verify[last])
	if err := os.MkdirAll(bare, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(data, vmsCommand, "vagrant", "Vagrantfile"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bare, "Vagrantfile"), text, 0o644); err != nil {
		return err
	}
	if err := in(bed.Dir, &times.Down, &times.unused, labctl, "down"); err != nil {
		return err
	}
	if err := in(bare, &times.Bare, &times.BareProcessors, "vagrant", "up"); err != nil {
		return err
	}
	if err := in(bare, &times.unused, &times.unused, "vagrant", "destroy", "-f"); err != nil {
		return err
	}
	// Vagrant leaves its copy of the box, which labctl's down takes away: the next
	// round is to find neither.
	return in(bare, &times.unused, &times.unused, "sh", "-c", `for v in $(virsh vol-list default | awk '/\//{print $1}'); do virsh vol-delete "$v" default; done`)
}

// processorTime is how long all processors were busy since the machine started,
// in seconds: the first line of /proc/stat (proc_stat(5)) without idle and iowait.
func processorTime() (float64, error) {
	const hz, idle, iowait = 100, 4, 5
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	busy := 0.0
	for i := 1; i < len(fields) && i <= 8; i++ {
		ticks, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != idle && i != iowait {
			busy += ticks / hz
		}
	}
	return busy, nil
}
