package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
)

//go:embed look.sh
var lookScript string

// seen is what a look at a machine found.
type seen struct {
	System, Arch, Kernel, OS, Hostname string
	// Root says that commands are root's.
	Root    bool
	BTF     bool
	Systemd bool
	// Cgroup and BPF are mount points; empty where there is none.
	Cgroup, BPF string
	// Managers are the running systemd-networkd and NetworkManager.
	Managers map[string]bool
	// Places are the directories of ours that a boot takes away, and that are there.
	Places   map[string]bool
	Commands map[string]bool
	Account  account
	// Client and Server are the ends of the SSH connection, as the machine has them.
	Client, Server netip.Addr
	Links          []link
	Routes         []route
	Ruleset        string
	Sysctls        map[string]string // by their path below /proc/sys
	Files          map[string]file
}

// account is the user who logs in.
type account struct {
	Name, UID, GID, Home string
}

// file is a regular file of the machine.
type file struct {
	Mode    int64
	Content string
}

// link is an interface, as ip -j -d addr shows it.
type link struct {
	Name      string   `json:"ifname"`
	Flags     []string `json:"flags"`
	MTU       int      `json:"mtu"`
	Address   string   `json:"address"`
	Permanent string   `json:"permaddr"`
	Alias     string   `json:"ifalias"`
	Info      struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
	Addresses []address `json:"addr_info"`
}

type address struct {
	Family string     `json:"family"`
	Local  netip.Addr `json:"local"`
	Bits   int        `json:"prefixlen"`
}

func (a address) prefix() netip.Prefix { return netip.PrefixFrom(a.Local, a.Bits) }

func (l link) up() bool {
	for _, f := range l.Flags {
		if f == "UP" {
			return true
		}
	}
	return false
}

// ipv4 are the link's IPv4 addresses.
func (l link) ipv4() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range l.Addresses {
		if a.Family == "inet" {
			all = append(all, a.prefix())
		}
	}
	return all
}

// depth is how far a look goes: what is not wanted need not be waited for.
type depth string

const (
	// lookOwner is whose node the machine is, and where what is the lab's lies there.
	lookOwner depth = "owner"
	// lookUplink is what the uplink is made out from, too.
	lookUplink depth = "uplink"
	lookAll    depth = "all"
)

// look looks at a machine.
func look(ctx context.Context, h host, user string, how depth) (seen, error) {
	mark := rand.Text()
	argv := []string{"sh", "-c", lookScript, "sh", string(how), mark, markFile, user}
	switch how {
	case lookUplink:
		argv = append(argv, resolverFiles()...)
	case lookAll:
		argv = append(argv, lookedAt()...)
	}
	var out bytes.Buffer
	if err := runWithErrors(ctx, h, lookLimit, provision.Command{Argv: argv, Stdout: &out}); err != nil {
		return seen{}, fmt.Errorf("look at the machine: %w", err)
	}
	s, err := parseSeen(out.Bytes(), mark)
	if err != nil {
		return seen{}, fmt.Errorf("look at the machine: %w", err)
	}
	return s, nil
}

// runWithErrors makes what a command says on its standard error part of its error,
// and ends one that takes longer than the limit.
func runWithErrors(ctx context.Context, h host, limit time.Duration, c provision.Command) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	var said bytes.Buffer
	c.Stderr = &said
	err := h.Run(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		return fmt.Errorf("%w within %s: %w (log in by ssh, and see what hangs)", errSlow, limit, err)
	}
	var exit *provision.ExitError
	if !errors.As(err, &exit) || said.Len() == 0 {
		return err
	}
	text := strings.TrimSpace(said.String())
	return fmt.Errorf("%s (%w)", text[max(0, len(text)-maxSaid):], err)
}

var errSlow = errors.New("the machine was not done")

// maxSaid bounds what of a command's standard error goes into an error, in bytes.
const maxSaid = 600

var errLook = errors.New("its answer is cut short or garbled")

// parseSeen reads what look.sh prints, whose texts end with the mark. A login
// shell may say something first.
func parseSeen(printed []byte, mark string) (seen, error) {
	s := seen{Managers: map[string]bool{}, Places: map[string]bool{}, Commands: map[string]bool{}, Sysctls: map[string]string{}, Files: map[string]file{}}
	ended := false
	for len(printed) > 0 {
		var line []byte
		line, printed, _ = bytes.Cut(printed, []byte("\n"))
		word, value, fact := strings.Cut(string(line), "\t")
		var err error
		switch {
		case fact:
			err = s.take(word, value)
		case isText(word):
			text, rest, whole := bytes.Cut(printed, []byte("\n"+mark+"\n"))
			if !whole {
				return s, errLook
			}
			printed, err = rest, s.takeText(word, text)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w: %w", word, errLook, err)
		}
		ended = word == "end"
	}
	if !ended {
		return s, errLook
	}
	return s, nil
}

func isText(word string) bool {
	return slices.Contains([]string{"links", "routes", "ruleset", "sysctls", "files"}, word)
}

func (s *seen) take(word, value string) error {
	switch word {
	case "system":
		s.System = value
	case "arch":
		s.Arch = value
	case "kernel":
		s.Kernel = value
	case "os":
		s.OS = value
	case "hostname":
		s.Hostname = value
	case "root":
		s.Root = value == "0"
	case "btf":
		s.BTF = true
	case "init":
		s.Systemd = value == "systemd"
	case "cgroup2":
		s.Cgroup = firstOf(s.Cgroup, value)
	case "bpf":
		s.BPF = firstOf(s.BPF, value)
	case "place":
		s.Places[value] = true
	case "manager":
		s.Managers[value] = true
	case "command":
		s.Commands[value] = true
	case "account":
		return s.takeAccount(value)
	case "connection":
		return s.takeConnection(value)
	case "owner":
		if value != "" {
			value += "\n"
		}
		s.Files[markFile] = file{plainMode, s.Files[markFile].Content + value}
	}
	return nil
}

func (s *seen) takeText(word string, data []byte) error {
	switch word {
	case "links":
		return json.Unmarshal(data, &s.Links)
	case "routes":
		var found []foundRoute
		if err := json.Unmarshal(data, &found); err != nil {
			return err
		}
		for _, f := range found {
			r, err := f.route()
			if err != nil {
				return err
			}
			s.Routes = append(s.Routes, r)
		}
	case "ruleset":
		s.Ruleset = string(data)
	case "sysctls":
		for line := range strings.Lines(string(data)) {
			path, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			s.Sysctls[strings.TrimPrefix(path, "/proc/sys/")] = value
		}
	case "files":
		return s.takeFiles(data)
	}
	return nil
}

// takeFiles reads an archive; one that tar has cut short at its very beginning
// holds no files.
func (s *seen) takeFiles(data []byte) error {
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		switch head.Typeflag {
		case tar.TypeReg:
			s.Files[head.Name] = file{head.Mode & 0o777, string(content)}
		case tar.TypeLink: // a file that came before by another name
			s.Files[head.Name] = s.Files[head.Linkname]
		}
	}
}

func firstOf(now, value string) string {
	if now != "" {
		return now
	}
	return value
}

// takeAccount reads a line of passwd(5).
func (s *seen) takeAccount(line string) error {
	fields := strings.Split(line, ":")
	if len(fields) != 7 {
		return fmt.Errorf("it does not know the user who logs in: %q", line)
	}
	for _, number := range fields[2:4] {
		if _, err := strconv.ParseUint(number, 10, 32); err != nil {
			return err
		}
	}
	// Below it look.sh finds files by patterns.
	if !strings.HasPrefix(fields[5], "/") || strings.ContainsAny(fields[5], " \t*?[\\") {
		return fmt.Errorf("the home of %s is %q (let another user log in, whose home has no blank and no * ? [ in its path)", fields[0], fields[5])
	}
	s.Account = account{fields[0], fields[2], fields[3], fields[5]}
	return nil
}

// takeConnection reads SSH_CONNECTION: client, its port, server, its port.
func (s *seen) takeConnection(value string) error {
	fields := strings.Fields(value)
	if len(fields) != 4 {
		return nil // not by sshd, as in a container
	}
	var err error
	if s.Client, err = netip.ParseAddr(fields[0]); err != nil {
		return err
	}
	s.Server, err = netip.ParseAddr(fields[2])
	return err
}

func (s seen) link(name string) (link, bool) {
	for _, l := range s.Links {
		if l.Name == name {
			return l, true
		}
	}
	return link{}, false
}

func (s seen) has(path, content string, mode int64) bool {
	f, ok := s.Files[path]
	return ok && f.Content == content && f.Mode == mode
}

// goArch is the machine's architecture in Go's words; uname's where it is not known.
func (s seen) goArch() string {
	switch s.Arch {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return s.Arch
}
