//go:build linux

package tables

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

// The tools, and how a chain names the one that it was read with.
const (
	toolNFT      = "nft"
	toolIPTables = "iptables"
	toolLegacy   = "iptables-legacy"
)

// firewall reads every chain of the namespace that the thread is in. What
// iptables wrote through nftables is read as iptables has it, because nft does
// not print all of that. Missing says what could not be read.
func firewall() (chains []api.Chain, missing []string) {
	read := func(parse func([]byte) ([]api.Chain, error), tool string, args ...string) []api.Chain {
		path, err := exec.LookPath(tool)
		if err != nil {
			return nil
		}
		out, err := exec.Command(path, args...).Output()
		if err == nil {
			var found []api.Chain
			if found, err = parse(out); err == nil {
				return found
			}
		}
		missing = append(missing, fmt.Sprintf("the firewall, with %s: %v", tool, err))
		return nil
	}
	var native []api.Chain
	if hasNFT() {
		native = read(parseNFT, "nft", "-j", "list", "ruleset")
	}
	if len(native) > 0 {
		saved := read(func(b []byte) ([]api.Chain, error) { return parseIPTables(b, toolIPTables) }, "iptables-nft-save")
		native = append(withoutTablesOf(native, saved), saved...)
	}
	if hasLegacy() {
		native = append(native, read(func(b []byte) ([]api.Chain, error) { return parseIPTables(b, toolLegacy) }, "iptables-legacy-save")...)
	}
	return native, missing
}

// hasNFT asks the kernel whether there are tables of nftables: a program is
// worth starting only then. Where the kernel does not say, there may be.
func hasNFT() bool {
	const getTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETTABLE
	request := nl.NewNetlinkRequest(getTable, unix.NLM_F_DUMP)
	request.AddRawData([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0})
	tables, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	return err != nil || len(tables) > 0
}

// hasLegacy says whether there are tables of the older iptables.
func hasLegacy() bool {
	names, _ := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	return len(names) > 0
}

// withoutTablesOf leaves out the chains of tables that iptables keeps.
func withoutTablesOf(chains, iptables []api.Chain) []api.Chain {
	own := map[string]bool{}
	for _, c := range iptables {
		own[c.Table] = true
	}
	var kept []api.Chain
	for _, c := range chains {
		if c.Family != "ip" || !own[c.Table] {
			kept = append(kept, c)
		}
	}
	return kept
}
