package vagrant

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// outputDelay is how long what vagrant started may hold its output open after
// it ended: VirtualBox leaves a server behind.
const outputDelay = 2 * time.Second

// runner runs vagrant for one lab.
type runner struct {
	command  string
	at       paths
	provider string
	// data is where it finds what it keeps of machines; the lab's .vagrant where it is empty.
	data string
	// grace is what an interrupted vagrant gets for its own cleaning up.
	grace time.Duration
}

// run waits for vagrant with these arguments and hands over its events, one
// after another. All that it prints goes to the lab's log. When ctx ends it is
// interrupted, which it answers by cleaning up, and killed only after a while.
// An error is a [*Fault] that was not told apart yet, or of ctx.
func (r runner) run(ctx context.Context, on func(event), args ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	log, err := r.openLog(args)
	if err != nil {
		return err
	}
	defer log.Close()
	heard := &listener{on: on, log: log}
	cmd := exec.Command(r.command, append(args, "--machine-readable")...)
	cmd.Dir = r.at.dir
	cmd.Env = r.environment(os.Environ())
	cmd.Stdout, cmd.Stderr = (*stdout)(heard), (*stderr)(heard)
	cmd.WaitDelay = outputDelay
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return notStarted(r.command, err)
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		r.stop(ctx, cmd, ended)
	}()
	err = cmd.Wait()
	close(ended)
	<-stopped
	heard.end()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return heard.failure(r.at.log(), args, err)
}

// look runs a vagrant that changes nothing, and returns its events. One that
// hangs is ended: it is waiting for what runs the VMs.
func (p *Provider) look(ctx context.Context, l *lab, provider string, args ...string) ([]event, error) {
	r := p.runner(l, provider)
	r.grace = outputDelay // it has nothing to clean up
	var err error
	if r.data, err = l.at.view(); err != nil {
		return nil, fmt.Errorf("look at the machines of lab %s: %w", l.name, err)
	}
	defer os.RemoveAll(r.data)
	limited, cancel := context.WithTimeout(ctx, p.options.lookTime())
	defer cancel()
	var events []event
	err = r.run(limited, func(e event) { events = append(events, e) }, args...)
	if err == nil || limited.Err() == nil || ctx.Err() != nil {
		return events, err
	}
	f := &Fault{Class: ErrLibvirt, Cure: cureHung, Log: l.at.log(),
		Said: fmt.Sprintf("vagrant %s has not ended within %v", args[0], p.options.lookTime())}
	if provider == VirtualBox {
		f.Class, f.Cure = ErrVirtualBox, "end the process VBoxSVC where VBoxManage list vms hangs too"
	}
	return nil, f
}

// view copies what Vagrant keeps of the lab's machines, for one that only looks.
// By index_uuid it would find them in Vagrant's index too, and write down there what
// it saw; and a vagrant up that meets it at that gives the machine up that it is
// booting, and removes it (Machine#state and MachineIndex#get of Vagrant 2.3).
func (p paths) view() (dir string, err error) {
	if dir, err = os.MkdirTemp(p.dir, "look-"); err != nil {
		return "", err
	}
	from := os.DirFS(p.machines())
	err = fs.WalkDir(from, ".", func(path string, entry fs.DirEntry, err error) error {
		to := filepath.Join(dir, "machines", path)
		switch {
		case err != nil:
		case entry.IsDir():
			err = os.MkdirAll(to, 0o700)
		case entry.Name() != "index_uuid" && entry.Name() != "private_key":
			var content []byte
			if content, err = fs.ReadFile(from, path); err == nil {
				err = os.WriteFile(to, content, 0o600)
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // a machine that goes meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		os.RemoveAll(dir)
	}
	return dir, err
}

// stop interrupts the command's whole group when ctx ends, and kills it when it
// has not ended after the grace.
func (r runner) stop(ctx context.Context, cmd *exec.Cmd, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	_ = interrupt(cmd.Process) // gone already is as good
	grace := time.NewTimer(r.grace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		_ = kill(cmd.Process)
	}
}

// notStarted is a vagrant that could not even be run.
func notStarted(command string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return &Fault{Class: ErrNoVagrant, Cure: cureNoVagrant}
	}
	return fmt.Errorf("run %s: %w", command, err)
}

// environment is the caller's, without what would lead Vagrant elsewhere.
func (r runner) environment(env []string) []string {
	var kept []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch strings.ToUpper(name) {
		case "VAGRANT_CWD", "VAGRANT_VAGRANTFILE", "VAGRANT_DOTFILE_PATH", "VAGRANT_DEFAULT_PROVIDER",
			"VAGRANT_PREFERRED_PROVIDERS", "VAGRANT_LOG", "VAGRANT_FORCE_COLOR", "VAGRANT_EXPERIMENTAL":
			continue
		}
		kept = append(kept, e)
	}
	if r.data != "" {
		kept = append(kept, "VAGRANT_DOTFILE_PATH="+r.data)
	}
	return append(kept, "VAGRANT_CWD="+r.at.dir, "VAGRANT_DEFAULT_PROVIDER="+r.provider,
		"VAGRANT_CHECKPOINT_DISABLE=1", "VAGRANT_NO_COLOR=1")
}

func (r runner) openLog(args []string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(r.at.log()), 0o755); err != nil {
		return nil, fmt.Errorf("open the log of vagrant: %w", err)
	}
	log, err := os.OpenFile(r.at.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of vagrant: %w", err)
	}
	fmt.Fprintf(log, "\n%s vagrant %s\n", time.Now().UTC().Format(time.RFC3339), strings.Join(args, " "))
	return log, nil
}
