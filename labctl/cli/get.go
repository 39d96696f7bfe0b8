package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/kubectl"
	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

// getFlags are the flags of get.
type getFlags struct {
	query  kubectl.Query
	output *ui.FormatFlag
	labels bool
	bare   bool
}

func newGet(a *app) *cobra.Command {
	flags := &getFlags{output: ui.NewFormat(kubectl.Formats()...)}
	cmd := &cobra.Command{
		Use:   "get TYPE[,TYPE...] [NAME...] | TYPE/NAME...",
		Short: "Show the lab's Kubernetes objects as kubectl does",
		Long: `Shows Deployments, ReplicaSets, Services, Endpoints, EndpointSlices, Pods, Nodes,
Namespaces and CiliumEndpoints in kubectl's columns, by kubectl's names and short
names. Each agent says how its pods are; of a node whose agent is silent nothing
is known.`,
		Example: "  labctl get deploy,svc,ep,endpointslices,pods -l app=webpod -o wide\n  labctl get pod curl-pod -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			flags.query.Args = args
			return a.get(cmd.Context(), flags)
		},
		ValidArgsFunction: a.completeObjects,
	}
	f := cmd.Flags()
	f.StringVarP(&flags.query.Namespace, "namespace", "n", "default", "of the objects")
	f.BoolVarP(&flags.query.AllNamespaces, "all-namespaces", "A", false, "objects of all namespaces")
	f.StringVarP(&flags.query.Labels, "selector", "l", "", "only objects with these labels (app=webpod, 'app in (a,b)', !app)")
	f.StringVar(&flags.query.Fields, "field-selector", "", "only objects with this metadata.name, or pods with this spec.nodeName")
	f.BoolVar(&flags.labels, "show-labels", false, "a column of the labels")
	f.BoolVar(&flags.bare, "no-headers", false, "rows alone")
	addOutput(cmd, flags.output)
	return cmd
}

func (a *app) get(ctx context.Context, flags *getFlags) error {
	request, err := flags.query.Compile()
	if err != nil {
		return usageError{fmt.Errorf("get: %w", err)}
	}
	l, err := a.current(ctx, a.story())
	if err != nil {
		return err
	}
	saved, err := l.Store.Load(l.Name)
	if err != nil {
		return err
	}
	view := viewOf(saved)
	view.Version = a.Version
	if request.AsksAgents() {
		view.Pods, view.Silent = l.Pods(ctx, saved)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.tellSilent(view.Silent)
	}
	view.Now = time.Now()
	answer, missing := request.Find(kubectl.View(view))
	layout := kubectl.Layout{Format: flags.output.Format, Labels: flags.labels, Bare: flags.bare, Age: kubectl.AgeAt(view.Now)}
	if err := answer.Write(a.Out, layout); err != nil {
		return errors.Join(missing, err)
	}
	tabular := layout.Format == ui.Table || layout.Format == kubectl.Wide
	if missing == nil && answer.Empty() && tabular {
		fmt.Fprintln(a.Err, answer.Nothing())
	}
	return missing
}

func viewOf(saved lab.Saved) kubectl.Lab {
	return kubectl.Lab{Set: saved.Workloads, Topology: saved.Topology, Since: saved.Since}
}

// tellSilent says why nothing is known of some nodes.
func (a *app) tellSilent(silent map[string]error) {
	var lines []string
	for node, err := range silent {
		text := err.Error()
		if !strings.Contains(text, node) {
			text = node + ": " + text
		}
		lines = append(lines, "warning: "+text)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(a.Err, line)
	}
}

// completeObjects offers types, and then names of the type.
func (a *app) completeObjects(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeTypes(typed), cobra.ShellCompDirectiveNoFileComp
	}
	namespace, err := cmd.Flags().GetString("namespace")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	request, err := kubectl.Query{Args: args[:1], Namespace: namespace}.Compile()
	saved, ok := a.saved(cmd.Context())
	if err != nil || !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	answer, _ := request.Find(kubectl.View(viewOf(saved))) // it misses only names, and none was given
	return answer.Names(), cobra.ShellCompDirectiveNoFileComp
}

// completeTypes goes on after the last comma.
func completeTypes(typed string) []string {
	before := typed[:strings.LastIndex(typed, ",")+1]
	var words []string
	for _, word := range kubectl.Types() {
		words = append(words, before+word)
	}
	return words
}
