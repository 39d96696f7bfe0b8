package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/provision"
)

//go:embed service.sh
var serviceScript string

// patience is how many seconds a service may take until it holds its lock: an
// emulated machine that has just booted is slow.
const patience = 60

// The record of what a service was started from is in its own environment: it
// comes and goes with the process, so it cannot be wrong.
const (
	markExecutable = "LABCTL_EXECUTABLE"
	markArguments  = "LABCTL_ARGUMENTS"
	markUnit       = "LABCTL_UNIT"
	markLock       = "LABCTL_LOCK"
)

// standing is how a service stands.
type standing struct {
	facts map[string]string
}

func (s standing) running() bool {
	pid := s.facts["lock"]
	return pid != "" && pid != "0" && pid == s.facts["MainPID"]
}

func (s standing) enabled() bool { return s.facts["UnitFileState"] == "enabled" }

// log is the end of what the service said.
func (s standing) log() string {
	text, err := base64.StdEncoding.DecodeString(s.facts["log"])
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return "nothing"
	}
	return strings.TrimSpace(string(text))
}

// EnsureService keeps one process running as a unit of systemd that also starts
// at boot, labctl-<name>.service. It holds the lock file <RunDir>/<name>.lock by
// flock(2), with its number inside; the file's path is in its environment as
// LABCTL_LOCK, and it takes the lock itself. Its output goes to <Dir>/<name>.log.
// It is started anew where its executable's file, its arguments or its unit are
// others, and holds its lock when this returns without an error. What it has
// started runs on when it ends.
func (n *Node) EnsureService(ctx context.Context, service provision.Service) ([]provision.Change, error) {
	if len(service.Argv) == 0 || service.Name == "" || service.Name != path.Base(service.Name) {
		return nil, fmt.Errorf("%s: service %q: want a name and a command", n.name, service.Name)
	}
	d := daemon{node: n, name: service.Name, argv: slices.Clone(service.Argv)}
	if !path.IsAbs(d.argv[0]) {
		d.argv[0] = path.Join(dir, d.argv[0])
	}
	changes, err := d.ensure(ctx, service.Restart)
	if err != nil {
		return changes, fmt.Errorf("%s: service %s: %w", n.name, service.Name, err)
	}
	return changes, nil
}

// daemon is one service of a node.
type daemon struct {
	node *Node
	name string
	argv []string
}

func (d daemon) unit() string { return unitPrefix + d.name + ".service" }
func (d daemon) lock() string { return path.Join(runDir, d.name+".lock") }
func (d daemon) log() string  { return path.Join(dir, d.name+".log") }

func (d daemon) ensure(ctx context.Context, restart string) ([]provision.Change, error) {
	now, err := d.look(ctx, 0)
	if err != nil {
		return nil, err
	}
	if now.facts["missing"] != "" {
		return nil, fmt.Errorf("%w: it runs no systemd, of which labctl's services are units", provision.ErrUnsupported)
	}
	text := d.text(now.facts["executable"])
	change := provision.Change{Verb: provision.Started, Node: d.node.name, Object: d.name}
	if now.running() {
		reason := d.whyRestart(now, text, restart)
		if reason == "" && now.enabled() {
			return nil, nil
		}
		change.Detail = "again, " + reason
		if reason == "" {
			change = provision.Change{Verb: provision.Changed, Node: d.node.name, Object: d.name, Detail: "starts at boot"}
		}
		if err := act(ctx, d.node.host, d.begin(now, text, reason != "")); err != nil {
			return nil, err
		}
	} else if err := act(ctx, d.node.host, d.begin(now, text, true)); err != nil {
		return nil, err
	}
	if now, err = d.look(ctx, patience); err != nil {
		return nil, err
	}
	if !now.running() {
		if code, err := strconv.Atoi(now.facts["ExecMainStatus"]); err == nil && now.facts["NRestarts"] != "0" {
			return nil, fmt.Errorf("it ended at once: %w; %s says: %s", &provision.ExitError{Argv: d.argv, Code: code}, d.log(), now.log())
		}
		return nil, fmt.Errorf("it does not hold %s after %d s (%s is %s); %s says: %s", d.lock(), patience, d.unit(), now.facts["ActiveState"], d.log(), now.log())
	}
	return []provision.Change{change}, nil
}

func (d daemon) look(ctx context.Context, wait int) (standing, error) {
	var out bytes.Buffer
	argv := []string{"sh", "-c", serviceScript, "sh", d.unit(), d.argv[0], d.lock(), d.log(), strconv.Itoa(wait)}
	if err := runWithErrors(ctx, d.node.host, lookLimit, provision.Command{Argv: argv, Stdout: &out}); err != nil {
		return standing{}, err
	}
	s := standing{facts: map[string]string{}}
	for line := range strings.Lines(out.String()) {
		word, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		s.facts[word] = value
	}
	if s.facts["end"] == "" && s.facts["missing"] == "" {
		return s, errLook
	}
	return s, nil
}

// whyRestart compares the running process with what is asked for.
func (d daemon) whyRestart(now standing, text, restart string) string {
	switch {
	case restart != "":
		return restart
	case now.facts["executable"] == "":
		return "" // there is nothing to start in its place
	case now.facts[markExecutable] != now.facts["executable"]:
		return "its executable differs"
	case now.facts[markArguments] != d.arguments():
		return "its arguments differ"
	case now.facts[markUnit] != unitDigest(text):
		return "its unit differs"
	}
	return ""
}

// begin writes the unit and starts it. Without its lock's file nothing that ran
// before can be taken for what is started. To enable a unit has systemd read its
// files, too.
func (d daemon) begin(now standing, text string, start bool) todo {
	var t todo
	t.do("put", "644", rootOwner, path.Join(unitDir, d.unit()), encode(text+"Environment="+markUnit+"="+unitDigest(text)+"\n"))
	if !start {
		t.do("run", "systemctl", "--quiet", "enable", d.unit())
		return t
	}
	if now.facts["ActiveState"] != "inactive" || now.facts["NRestarts"] != "0" {
		t.do("run", "systemctl", "stop", d.unit())
		t.do("try", "systemctl", "reset-failed", d.unit())
	}
	t.do("run", "mkdir", "-p", runDir)
	t.do("run", "rm", "-f", d.lock())
	t.do("run", "systemctl", "--quiet", "enable", "--now", d.unit())
	return t
}

// capabilities are what the agent needs, and what it starts for pods: a bounding
// set cannot be widened again below. Not among them is what a pod's programs have
// no business with: modules, clocks, raw devices, reboots, auditing.
const capabilities = "CAP_BPF CAP_PERFMON CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SYS_ADMIN CAP_SYS_CHROOT CAP_SYS_PTRACE " +
	"CAP_SYS_RESOURCE CAP_SYS_NICE CAP_IPC_LOCK CAP_KILL CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID " +
	"CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_SETFCAP"

// text is the unit, but for the mark with its own digest, which comes last.
func (d daemon) text(executable string) string {
	n := d.node
	lines := []string{
		strings.TrimSuffix(header(n.lab), "\n"),
		"[Unit]",
		"Description=labctl: " + d.name + " of " + n.name + " in lab " + n.lab,
		"After=network.target " + bootUnit,
		"StartLimitIntervalSec=0",
		"",
		"[Install]",
		"WantedBy=multi-user.target",
		"",
		"[Service]",
		"# What a boot takes away.",
		"RuntimeDirectory=" + path.Base(runDir),
		"RuntimeDirectoryPreserve=yes",
		"ExecStartPre=mkdir -p " + n.BPFDir(),
		"ExecStart=" + unitWords(d.argv),
		"Restart=always",
		"RestartSec=500ms",
		"# Pods outlive the agent.",
		"KillMode=process",
		"TimeoutStopSec=5",
		"LimitMEMLOCK=infinity",
		"LimitNOFILE=65536",
		"TasksMax=infinity",
		"CapabilityBoundingSet=" + capabilities,
		"StandardOutput=append:" + d.log(),
		"StandardError=append:" + d.log(),
	}
	for _, e := range n.environment() {
		lines = append(lines, "Environment="+e)
	}
	lines = append(lines, "Environment=HOME=/root", "Environment="+markLock+"="+d.lock(),
		"Environment="+markExecutable+"="+executable, "Environment="+markArguments+"="+d.arguments())
	return strings.Join(lines, "\n") + "\n"
}

func (d daemon) arguments() string { return digest(d.argv...) }

func unitDigest(text string) string { return digest(text) }

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// unitWords are arguments as systemd reads them (systemd.service(5), "Command lines").
func unitWords(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		quoted := strconv.Quote(a)
		words[i] = strings.NewReplacer("%", "%%", "$", "$$").Replace(quoted)
	}
	return strings.Join(words, " ")
}
