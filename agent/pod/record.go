//go:build linux

package pod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
)

// The files of a pod's directory.
const (
	recordFile   = "pod.json"
	lockFile     = "lock"
	statusFile   = "status.json"
	readyFile    = "ready.json"
	logFile      = "log"
	hostsFile    = "hosts"
	hostnameFile = "hostname"
	resolverFile = "resolv.conf"
)

// record is what a pod is to be on its node.
type record struct {
	Lab      string         `json:"lab"`
	Node     string         `json:"node"`
	Pod      api.Pod        `json:"pod"`
	Network  api.PodNetwork `json:"network"`
	Endpoint uint32         `json:"endpoint"`
	// Cgroup is the pod's directory in the cgroup2 hierarchy, or empty.
	Cgroup string `json:"cgroup,omitempty"`
}

// replaces says whether a sandbox that was started from old cannot become r.
func (r record) replaces(old record) bool {
	essence := func(r record) []byte {
		text, _ := json.Marshal([]any{r.Lab, r.Node, r.Cgroup, r.Pod.Key(), r.Pod.Address, r.Pod.Spec, r.Network.Gateway})
		return text
	}
	return !bytes.Equal(essence(r), essence(old))
}

// status is what a sandbox says of its containers, in the order of the spec.
type status struct {
	// PID is the sandbox that speaks, by the machine's number.
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Ending is set once the sandbox was told to end.
	Ending     bool        `json:"ending,omitempty"`
	Containers []container `json:"containers"`
}

// container is one container as its sandbox has it.
type container struct {
	Name     string    `json:"name"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exitCode"`
	Started  time.Time `json:"started,omitzero"`
	// LastEnded is when the last run ended, and LastExitCode how; zero where none has.
	LastEnded    time.Time `json:"lastEnded,omitzero"`
	LastExitCode int       `json:"lastExitCode,omitempty"`
	// PID is the running process, by the machine's number; 0 where none is.
	PID int `json:"pid,omitempty"`
}

// The states of a container, and Kubernetes' words for why.
const (
	running    = "running"
	waiting    = "waiting"
	terminated = "terminated"

	reasonCreating  = "ContainerCreating"
	reasonBackOff   = "CrashLoopBackOff"
	reasonCompleted = "Completed"
	reasonError     = "Error"
	reasonStart     = "StartError"
)

// startErrorCode is the exit code that Kubernetes shows where nothing was started.
const startErrorCode = 128

// readJSON reads one file of a pod's directory.
func readJSON(dir, name string, into any) error {
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// writeJSON replaces one file of a pod's directory in one step.
func writeJSON(dir, name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	// Not flushed to the disk: a pod does not outlive the machine.
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ensureFile writes content where it differs. The file stays the same one, for
// it may be mounted somewhere.
func ensureFile(path, content string) error {
	now, err := os.ReadFile(path)
	if err == nil && string(now) == content {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// ensureFiles writes what differs in the pod's directory.
func (r record) ensureFiles(dir, nodeHosts string) error {
	if err := ensureFile(filepath.Join(dir, hostsFile), podHosts(r.Pod, nodeHosts)); err != nil {
		return err
	}
	if err := ensureFile(filepath.Join(dir, hostnameFile), r.Pod.Spec.Hostname+"\n"); err != nil {
		return err
	}
	if !r.Pod.Spec.Nameserver.IsValid() {
		return nil
	}
	return ensureFile(filepath.Join(dir, resolverFile), resolver(*r.Pod.Spec))
}

// podHosts is the pod's /etc/hosts: its own name, and those of nodeHosts, the
// node's own file.
func podHosts(p api.Pod, nodeHosts string) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n")
	fmt.Fprintf(&b, "%s\t%s\n", p.Address, p.Spec.Hostname)
	for line := range strings.Lines(nodeHosts) {
		text, _, _ := strings.Cut(line, "#")
		fields := strings.Fields(text)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "127.") || strings.Contains(fields[0], ":") {
			continue
		}
		b.WriteString(strings.Join(fields, "\t") + "\n")
	}
	return b.String()
}

// resolver is the pod's /etc/resolv.conf, as the kubelet writes it for the
// policy ClusterFirst.
func resolver(s api.PodSpec) string {
	var b strings.Builder
	if len(s.Search) > 0 {
		b.WriteString("search " + strings.Join(s.Search, " ") + "\n")
	}
	b.WriteString("nameserver " + s.Nameserver.String() + "\n")
	if len(s.Search) > 0 {
		b.WriteString("options ndots:5\n")
	}
	return b.String()
}
