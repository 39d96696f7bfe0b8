package machine

import (
	"slices"
	"strings"

	"github.com/native-routing/labctl/provision"
)

// tool is a command that the lab needs, and the package that has it.
type tool struct{ command, debian, fedora string }

func tools() []tool {
	return []tool{
		{"ip", "iproute2", "iproute"}, {"tc", "iproute2", "iproute-tc"}, {"nft", "nftables", "nftables"},
		{"ping", "iputils-ping", "iputils"}, {"tracepath", "iputils-tracepath", "iputils"},
		{"tcpdump", "tcpdump", "tcpdump"}, {"curl", "curl", "curl"},
	}
}

// missing are the commands that the machine does not have.
func (s seen) missing() []string {
	var names []string
	for _, t := range tools() {
		if !s.Commands[t.command] {
			names = append(names, t.command)
		}
	}
	return names
}

// planPackages installs what is missing, where that has not been tried since the
// machine booted: without a network it takes long to fail.
func planPackages(w want, s seen) (todo, error) {
	var t todo
	var packages []string
	for _, tool := range tools() {
		name := tool.debian
		if !s.Commands["apt-get"] {
			name = tool.fedora
		}
		if !s.Commands[tool.command] && !slices.Contains(packages, name) {
			packages = append(packages, name)
		}
	}
	tried := strings.Join(packages, " ") + "\n"
	if len(packages) == 0 || s.Files[triedFile].Content == tried {
		return t, nil
	}
	t.do("run", "mkdir", "-p", runDir)
	// install queues for a lock that another holds, such as the update after a boot.
	install := func(argv ...string) {
		t.do(append([]string{"try", "queue", PackagesLog, "env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}, argv...)...)
	}
	switch {
	case s.Commands["apt-get"]:
		install("dpkg", "--configure", "-a") // what was cut short before
		// Fails at once without a network.
		apt := []string{"apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=15"}
		install(append(apt, "update")...)
		install(append(append(apt, "install", "--no-install-recommends"), packages...)...)
	case s.Commands["dnf"]:
		install(append([]string{"dnf", "-q", "-y", "--setopt=install_weak_deps=False", "install"}, packages...)...)
	default:
		return todo{}, nil
	}
	t.put(s, triedFile, tried, plainMode, rootOwner)
	t.again, t.limit = true, packageLimit
	return t, nil
}

// installed says which packages came to a machine between two looks.
func installed(node string, before, after seen) []provision.Change {
	var names []string
	for _, name := range before.missing() {
		if after.Commands[name] {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []provision.Change{{Verb: provision.Created, Node: node, Object: "commands", Detail: strings.Join(names, ", ")}}
}

// remarks are what the lab lacks on a machine, and works without.
func (s seen) remarks() []string {
	var remarks []string
	note := func(text string) { remarks = append(remarks, text) }
	if s.Commands["nft"] && !s.kernelFrom(egressMajor, egressMinor) {
		note("its kernel " + s.Kernel + " sends what is lost by the uplink on, from 5.16 on it does not: answers are dropped")
	}
	if !s.BTF {
		note("its kernel " + s.Kernel + " has no BTF, without which the agent loads no datapath")
	}
	if s.Cgroup == "" {
		note("there is no cgroup2 hierarchy, so sockets are not balanced")
	}
	if !s.Systemd {
		note("it runs no systemd: nothing of the lab comes back by itself when it boots")
	}
	return remarks
}
