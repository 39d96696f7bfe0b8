//go:build linux

package dbg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

const (
	serviceTitle = "SERVICE ADDRESS"
	backendTitle = "BACKEND ADDRESS (REVNAT_ID) (SLOT)"
)

func (p *program) lbList() *cobra.Command {
	var revnat, backends, frontends bool
	count := func(set ...bool) (n int) {
		for _, is := range set {
			if is {
				n++
			}
		}
		return n
	}
	cmd := p.list(`Load-balancing entries: slot 0 is the service, the others its backends
Sorted by address and slot. With --backends and --revnat sorted by id.`,
		func(context.Context) error {
			if count(revnat, backends, frontends) > 1 {
				return usageError{errors.New("only one of --revnat, --backends and --frontends can be listed at a time")}
			}
			dump, err := p.read(bpf.Frontends)
			if err != nil {
				return err
			}
			switch {
			case revnat:
				return p.lbRevNAT(dump.RevNATs())
			case backends:
				return p.lbBackends(dump.BackendList())
			case frontends:
				return p.lbFrontends(byAddress(dump.FrontendList()))
			default:
				return p.lbServices(byAddress(dump.FrontendList()))
			}
		})
	cmd.Flags().BoolVar(&revnat, "revnat", false, "list reverse NAT entries")
	cmd.Flags().BoolVar(&backends, "backends", false, "list all backends")
	cmd.Flags().BoolVar(&frontends, "frontends", false, "list all entries with their numbers")
	return cmd
}

func byAddress(frontends []inspect.Frontend) []inspect.Frontend {
	slices.SortStableFunc(frontends, func(a, b inspect.Frontend) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Scope, b.Scope))
	})
	return frontends
}

// frontendText is an address as Cilium writes it: 10.96.0.1:443/TCP, with /i for
// the half that callers in the cluster use.
func frontendText(f inspect.Frontend) string {
	text := f.Address.String() + "/" + f.Protocol
	if f.Internal() {
		text += "/i"
	}
	return text
}

// slotKey is the key of an entry of Cilium's services map.
func slotKey(f inspect.Frontend, slot int) string {
	return fmt.Sprintf("%s (%d)", frontendText(f), slot)
}

func (p *program) lbServices(frontends []inspect.Frontend) error {
	return p.show(frontends, func(w io.Writer) {
		var rows []pair
		for _, f := range frontends {
			rows = append(rows, pair{slotKey(f, 0), fmt.Sprintf("0.0.0.0:0 (%d) (0) [%s] ", f.ID, f.FlagText())})
			for i, backend := range f.Backends {
				rows = append(rows, pair{slotKey(f, i+1), slotText(f, backend, i+1)})
			}
		}
		pairs(w, serviceTitle, backendTitle, rows)
	})
}

func slotText(f inspect.Frontend, backend api.FrontendBackend, slot int) string {
	if backend.Missing {
		return fmt.Sprintf("backend %d not found", backend.ID)
	}
	return fmt.Sprintf("%s/%s (%d) (%d)", backend.Address, f.Protocol, f.ID, slot)
}

func (p *program) lbRevNAT(entries []inspect.RevNAT) error {
	return p.show(entries, func(w io.Writer) { pairs(w, "ID", backendTitle, revnatRows(entries)) })
}

func revnatRows(entries []inspect.RevNAT) []pair {
	var rows []pair
	for _, entry := range entries {
		rows = append(rows, pair{strconv.Itoa(int(entry.ID)), entry.Address.String()})
	}
	return rows
}

func (p *program) lbBackends(backends []inspect.Backend) error {
	return p.show(backends, func(w io.Writer) { pairs(w, "ID", backendTitle, backendRows(backends)) })
}

// backendRows have no port: Cilium prints none.
func backendRows(backends []inspect.Backend) []pair {
	var rows []pair
	for _, b := range backends {
		rows = append(rows, pair{strconv.Itoa(int(b.ID)), fmt.Sprintf("%s://%s", b.Protocol, b.Address.Addr())})
	}
	return rows
}

func (p *program) lbFrontends(frontends []inspect.Frontend) error {
	return p.show(serviceEntries(frontends), func(w io.Writer) {
		var rows []pair
		for _, entry := range serviceEntries(frontends) {
			rows = append(rows, pair{entry.Key, entry.text()})
		}
		pairs(w, serviceTitle, "BACKEND ID", rows)
	})
}

// serviceEntry is an entry of Cilium's services map, in numbers.
type serviceEntry struct {
	Key string `json:"key"`
	// Backend is a backend's id; in slot 0 the seconds of affinity.
	Backend     uint32 `json:"backend"`
	Count       int    `json:"count"`
	Quarantined int    `json:"qcount"`
	RevNAT      uint16 `json:"revNAT"`
	Flags       uint8  `json:"flags"`
	Flags2      uint8  `json:"flags2"`
}

func (e serviceEntry) text() string {
	return fmt.Sprintf("%d %d[%d] (%d) [%#x %#x]", e.Backend, e.Count, e.Quarantined, e.RevNAT, e.Flags, e.Flags2)
}

func serviceEntries(frontends []inspect.Frontend) []serviceEntry {
	entries := []serviceEntry{}
	for _, f := range frontends {
		entries = append(entries, serviceEntry{
			Key: slotKey(f, 0), Backend: uint32(f.Affinity.Seconds()), Count: f.Usable,
			Quarantined: len(f.Backends) - f.Usable, RevNAT: f.ID, Flags: uint8(f.FlagBits), Flags2: uint8(f.FlagBits >> 8),
		})
		for i, backend := range f.Backends {
			entries = append(entries, serviceEntry{Key: slotKey(f, i+1), Backend: backend.ID, RevNAT: f.ID})
		}
	}
	return entries
}

func (p *program) serviceList() *cobra.Command {
	return p.list(`Services and the state of their backends
Sorted by id. Of a NodePort only 0.0.0.0 is listed, as in Cilium 1.18; bpf lb
list has the others. Backends are numbered by their place.`,
		func(context.Context) error {
			dump, err := p.read(bpf.Frontends)
			if err != nil {
				return err
			}
			frontends := slices.DeleteFunc(dump.FrontendList(), func(f inspect.Frontend) bool {
				return f.Type == "NodePort" && !f.Surrogate()
			})
			if p.output == "json" {
				services := p.names().Services(frontends)
				for i := range frontends {
					frontends[i].Service = services[frontends[i].ID]
				}
			}
			return p.show(frontends, func(w io.Writer) {
				table(w, func(w io.Writer) { serviceRows(w, frontends) })
			})
		})
}

func serviceRows(w io.Writer, frontends []inspect.Frontend) {
	fmt.Fprint(w, "ID\tFrontend\tService Type\tBackend\t\n")
	for _, f := range frontends {
		backends := []string{""}
		for i, b := range f.Backends {
			text := fmt.Sprintf("%d => %s/%s (%s)", i+1, b.Address, f.Protocol, b.State)
			if b.Missing {
				text = fmt.Sprintf("%d => backend %d not found", i+1, b.ID)
			}
			backends = append(backends, text)
		}
		if len(backends) > 1 {
			backends = backends[1:]
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t\n", f.ID, frontendText(f), f.Type, backends[0])
		for _, text := range backends[1:] {
			fmt.Fprintf(w, "\t\t\t%s\t\n", text)
		}
	}
}
