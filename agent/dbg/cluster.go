//go:build linux

package dbg

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/inspect"
	"github.com/native-routing/labctl/bpf"
)

// stateless is what a node is where no state is known.
var stateless api.State

// namedAddress is a row of ip list.
type namedAddress struct {
	inspect.Address
	Labels []string   `json:"labels"`
	Source string     `json:"source"`
	Host   netip.Addr `json:"host,omitzero"`
}

func (p *program) ipList() *cobra.Command {
	var numeric, verbose bool
	cmd := p.list("The addresses of the cluster and whose they are\nSorted by prefix. Labels are those of the state that the agent was given.",
		func(context.Context) error {
			dump, err := p.read(bpf.IPCache)
			if err != nil {
				return err
			}
			names := p.names()
			rows := []namedAddress{}
			for _, a := range dump.AddressList() {
				row := namedAddress{Address: a, Source: names.Source(a), Host: names.Host(a), Labels: names.Labels(a.Identity)}
				if numeric {
					row.Labels = []string{strconv.Itoa(int(a.Identity))}
				} else if row.Labels == nil {
					fmt.Fprintf(p.stderr, "Cannot get identity for ID %d: no pod of the agent's state has it\n", a.Identity)
					row.Labels = []string{strconv.Itoa(int(a.Identity))}
				}
				rows = append(rows, row)
			}
			return p.show(rows, func(w io.Writer) {
				table(w, func(w io.Writer) { ipRows(w, rows, verbose) })
			})
		})
	cmd.Flags().BoolVarP(&numeric, "numeric", "n", false, "print identities as numbers")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the node and the encryption key too")
	return cmd
}

func ipRows(w io.Writer, rows []namedAddress, verbose bool) {
	if verbose {
		fmt.Fprint(w, "IP\tIDENTITY\tSOURCE\tHOST\tENCRYPT_KEY\n")
	} else {
		fmt.Fprint(w, "IP\tIDENTITY\tSOURCE\n")
	}
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s", row.Prefix, row.Labels[0], row.Source)
		if verbose {
			host := ""
			if row.Host.IsValid() {
				host = row.Host.String()
			}
			fmt.Fprintf(w, "\t%s\t0", host)
		}
		fmt.Fprintln(w)
		for _, label := range row.Labels[1:] {
			fmt.Fprintf(w, "\t%s\t\n", label)
		}
	}
}

// namedEndpoint is a row of endpoint list.
type namedEndpoint struct {
	inspect.Endpoint
	Labels []string `json:"labels"`
	Pod    string   `json:"pod,omitempty"`
	State  string   `json:"state"`
}

func (p *program) endpointList() *cobra.Command {
	var headless bool
	cmd := p.list(`The pods of this node, and the node itself
Sorted by id. An endpoint that is in the datapath is ready. There are no network
policies, so none is enforced.`,
		func(context.Context) error {
			dump, err := p.read(bpf.Endpoints)
			if err != nil {
				return err
			}
			rows := p.endpoints(dump)
			return p.show(rows, func(w io.Writer) {
				table(w, func(w io.Writer) { endpointTable(w, rows, headless) })
			})
		})
	cmd.Flags().BoolVar(&headless, "no-headers", false, "print no headers")
	return cmd
}

// endpoints makes one of all addresses of the node, as Cilium has one host endpoint.
func (p *program) endpoints(dump *inspect.Dump) []namedEndpoint {
	names := p.names()
	rows := []namedEndpoint{}
	host := false
	for _, e := range dump.EndpointList() {
		if e.Host && host {
			continue
		}
		host = host || e.Host
		row := namedEndpoint{Endpoint: e, Labels: names.Labels(e.Identity), Pod: names.Pod(e.Address), State: "ready"}
		if row.Labels == nil {
			row.Labels = []string{"no labels"}
		}
		rows = append(rows, row)
	}
	return rows
}

func endpointTable(w io.Writer, rows []namedEndpoint, headless bool) {
	if !headless {
		fmt.Fprint(w, "ENDPOINT\tPOLICY (ingress)\tPOLICY (egress)\tIDENTITY\tLABELS (source:key[=value])\tIPv6\tIPv4\tSTATUS\t\n")
		fmt.Fprint(w, "\tENFORCEMENT\tENFORCEMENT\t\t\t\t\t\n")
	}
	for _, row := range rows {
		address := row.Address.String()
		if row.Host {
			address = ""
		}
		fmt.Fprintf(w, "%d\tDisabled\tDisabled\t%d\t%s\t\t%s\t%s\t\n", row.ID, row.Identity, row.Labels[0], address, row.State)
		for _, label := range row.Labels[1:] {
			fmt.Fprintf(w, "\t\t\t\t%s\t\t\t\t\n", label)
		}
	}
}

// namedNode is a row of node list.
type namedNode struct {
	Name    string       `json:"name"`
	Address netip.Addr   `json:"address"`
	PodCIDR netip.Prefix `json:"podCIDR"`
	Source  string       `json:"source"`
}

func (p *program) nodeList() *cobra.Command {
	return p.list("The nodes of the cluster, as the agent was told of them\nSorted by name.",
		func(context.Context) error {
			names, err := inspect.ReadNames(p.config.DataDir)
			if err != nil {
				return err
			}
			rows := []namedNode{}
			if cluster := names.State.Cluster; cluster != nil {
				for _, node := range cluster.Nodes {
					row := namedNode{Name: cluster.Name + "/" + node.Name, Address: node.Address, PodCIDR: node.PodCIDR, Source: "custom-resource"}
					if node.Name == names.State.Node {
						row.Source = "local"
					}
					rows = append(rows, row)
				}
			}
			slices.SortFunc(rows, func(a, b namedNode) int { return cmp.Compare(a.Name, b.Name) })
			return p.show(rows, func(w io.Writer) {
				narrow(w, func(w io.Writer) {
					fmt.Fprint(w, "Name\tIPv4 Address\tEndpoint CIDR\tIPv6 Address\tEndpoint CIDR\tSource\n")
					for _, row := range rows {
						fmt.Fprintf(w, "%s\t%s\t%s\t\t\t%s\n", row.Name, row.Address, row.PodCIDR, row.Source)
					}
				})
			})
		})
}
