//go:build linux

package dbg

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

func (p *program) mapList() *cobra.Command {
	return p.list(`The maps by Cilium's names, with the number of their entries
Sorted by name. The numbers are of entries as Cilium has them: a service with
three backends is four, a translated source two. They are counted now in the
kernel's maps, those of ct and snat too, where Cilium shows 0; Cache enabled is
what Cilium has there.`,
		func(context.Context) error {
			dump, err := p.read()
			if err != nil {
				return err
			}
			maps := dump.MapList()
			return p.show(maps, func(w io.Writer) {
				table(w, func(w io.Writer) {
					fmt.Fprint(w, "Name\tNum entries\tNum errors\tCache enabled\n")
					for _, m := range maps {
						fmt.Fprintf(w, "%s\t%d\t%d\t%t\n", m.Name, m.Entries, m.Errors, m.Cached)
					}
				})
			})
		})
}

// shownMap is a map that map get can show.
type shownMap struct {
	name, reads string
	state       string // of all entries, as Cilium has it
	rows        func(*inspect.Dump) []pair
}

func shownMaps() []shownMap {
	return []shownMap{
		{inspect.LBServices, bpf.Frontends, "", func(d *inspect.Dump) []pair {
			var rows []pair
			for _, entry := range serviceEntries(byAddress(d.FrontendList())) {
				rows = append(rows, pair{entry.Key, entry.text()})
			}
			return rows
		}},
		{inspect.LBBackends, bpf.Frontends, "", func(d *inspect.Dump) []pair { return backendRows(d.BackendList()) }},
		{inspect.LBRevNAT, bpf.Frontends, "", func(d *inspect.Dump) []pair { return revnatRows(d.RevNATs()) }},
		{inspect.IPCacheMap, bpf.IPCache, "sync", func(d *inspect.Dump) []pair { return addressRows(d.AddressList()) }},
		{inspect.EndpointMap, bpf.Endpoints, "sync", func(d *inspect.Dump) []pair { return endpointRows(d.EndpointList()) }},
	}
}

// mapEntry is an entry in text.
type mapEntry struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	State string `json:"state"`
	Error string `json:"error"`
}

func (p *program) mapGet() *cobra.Command {
	names := make([]string, 0, len(shownMaps()))
	for _, m := range shownMaps() {
		names = append(names, m.name)
	}
	there := strings.Join(names, ", ")
	return &cobra.Command{
		Use: "get NAME", Short: "The entries of a map",
		Long:    "The entries of a map as Cilium has them, read from the kernel and sorted.\nThere is " + there + ".",
		Example: "  dbg map get cilium_lb4_services_v2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("map name must be specified (there is %s)", there)}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			for _, m := range shownMaps() {
				if m.name == args[0] {
					return p.getMap(m)
				}
			}
			return usageError{fmt.Errorf("unknown map %q (there is %s)", args[0], there)}
		},
		ValidArgs: names,
	}
}

func (p *program) getMap(m shownMap) error {
	dump, err := p.read(m.reads)
	if err != nil {
		return err
	}
	entries := []mapEntry{}
	for _, row := range m.rows(dump) {
		entries = append(entries, mapEntry{Key: row.key, Value: row.value, State: m.state})
	}
	return p.show(entries, func(w io.Writer) {
		if len(entries) == 0 {
			fmt.Fprint(w, "Cache is empty\n\n")
			return
		}
		table(w, func(w io.Writer) {
			fmt.Fprint(w, "Key\tValue\tState\tError\n")
			for _, e := range entries {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Key, e.Value, e.State, e.Error)
			}
		})
	})
}

func endpointRows(endpoints []inspect.Endpoint) []pair {
	var rows []pair
	for _, e := range endpoints {
		value := "(localhost)"
		if !e.Host {
			value = fmt.Sprintf("id=%-5d sec_id=%-5d flags=0x%04X ifindex=%-3d mac=%s nodemac=%s parent_ifindex=%-3d",
				e.ID, e.Identity, 0, e.Index, e.MAC, e.HostMAC, 0)
		}
		rows = append(rows, pair{e.Address.String() + ":0", value})
	}
	return rows
}
