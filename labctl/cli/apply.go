package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/manifest"
	"github.com/native-routing/labctl/labctl/ui"
)

func newApply(a *app) *cobra.Command {
	var files []string
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Bring Kubernetes objects into the lab",
		Long: `Takes manifests as kubectl does: Deployments, Pods, Services and Namespaces, several
documents in a file, a folder of files, - for the standard input. All objects are
applied or none.

A mistake is shown with its line. A field that a lab does not honour is an error
where it would change what you see, and a note where it would not.`,
		Example: "  labctl apply -f webpod.yaml\n  kubectl create deploy web --image=traefik/whoami --dry-run=client -o yaml | labctl apply -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := a.manifests(files)
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), output.Format, func(ctx context.Context, l *lab.Lab) (lab.WorkloadReport, error) {
				return l.Apply(ctx, objects)
			})
		},
	}
	addFiles(cmd, &files)
	addOutput(cmd, output)
	return cmd
}

func newDelete(a *app) *cobra.Command {
	var files []string
	var namespace string
	var ignore bool
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:     "delete (-f FILE | KIND NAME...)",
		Short:   "Take Kubernetes objects out of the lab",
		Example: "  labctl delete -f webpod.yaml\n  labctl delete pod curl-pod",
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := a.named(files, namespace, args)
			if err != nil {
				return err
			}
			return a.change(cmd.Context(), output.Format, func(ctx context.Context, l *lab.Lab) (lab.WorkloadReport, error) {
				return l.Delete(ctx, refs, ignore)
			})
		},
	}
	addFiles(cmd, &files)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "default", "of the objects that are named")
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "what is not there is no error")
	addOutput(cmd, output)
	return cmd
}

func addFiles(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringSliceVarP(files, "filename", "f", nil, "a manifest or a folder of them; - for the standard input")
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json") // it fails only for a flag that is not there
}

// manifests reads the files of a command line.
func (a *app) manifests(files []string) (manifest.Objects, error) {
	if len(files) == 0 {
		return manifest.Objects{}, usageError{errors.New("no manifest was given (-f FILE, or -f - for the standard input)")}
	}
	var all []manifest.Objects
	for _, name := range files {
		found, err := inFolder(name)
		if err != nil {
			return manifest.Objects{}, usageError{err}
		}
		for _, file := range found {
			objects, err := a.manifest(file)
			if err != nil {
				return manifest.Objects{}, err
			}
			all = append(all, objects)
		}
	}
	objects, err := manifest.Join(all...)
	if err == nil && len(objects.Refs) == 0 {
		err = usageError{fmt.Errorf("%s: there is no object in it", strings.Join(files, ", "))}
	}
	return objects, err
}

// inFolder lists the manifests of a folder, and a file as itself.
func inFolder(name string) ([]string, error) {
	info, err := os.Stat(name)
	if name == "-" || err == nil && !info.IsDir() {
		return []string{name}, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(name)
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); slices.Contains([]string{".yaml", ".yml", ".json"}, ext) && !e.IsDir() {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json is in this folder", name)
	}
	return files, err
}

func (a *app) manifest(name string) (manifest.Objects, error) {
	if name == "-" {
		return a.decode("standard input", a.In)
	}
	f, err := os.Open(name)
	if err != nil {
		return manifest.Objects{}, usageError{err}
	}
	defer f.Close()
	return a.decode(name, f)
}

// named are the objects that delete is asked for.
func (a *app) named(files []string, namespace string, args []string) ([]manifest.Ref, error) {
	if len(files) > 0 {
		if len(args) > 0 {
			return nil, usageError{errors.New("delete: name objects, or give a file, not both")}
		}
		objects, err := a.manifests(files)
		return objects.Refs, err
	}
	if len(args) == 1 {
		if kind, name, ok := strings.Cut(args[0], "/"); ok {
			args = []string{kind, name}
		}
	}
	if len(args) < 2 {
		return nil, usageError{errors.New("delete: say which objects (delete pod curl-pod, or -f FILE)")}
	}
	kind, ok := kindOf(args[0])
	if !ok {
		return nil, usageError{fmt.Errorf("delete %s: there are deployment, pod, service and namespace", args[0])}
	}
	if kind == "Namespace" {
		namespace = ""
	}
	var refs []manifest.Ref
	for _, name := range args[1:] {
		refs = append(refs, manifest.Ref{Kind: kind, Namespace: namespace, Name: name})
	}
	return refs, nil
}

// kindOf understands kubectl's names of what can be deleted.
func kindOf(word string) (string, bool) {
	for kind, words := range map[string][]string{
		"Deployment": {"deployment", "deployments", "deploy", "deployment.apps", "deployments.apps"},
		"Pod":        {"pod", "pods", "po"},
		"Service":    {"service", "services", "svc"},
		"Namespace":  {"namespace", "namespaces", "ns"},
	} {
		if slices.Contains(words, strings.ToLower(word)) {
			return kind, true
		}
	}
	return "", false
}

// change tells of an apply or a delete as kubectl would.
func (a *app) change(ctx context.Context, format ui.Format, do func(context.Context, *lab.Lab) (lab.WorkloadReport, error)) error {
	story := a.story()
	defer story.Close()
	l, err := a.current(ctx, story)
	if err != nil {
		return err
	}
	report, err := do(ctx, l)
	story.Close()
	if err := errors.Join(err, ui.Write(a.Out, format, report, func(w io.Writer) error {
		for _, c := range report.Changes {
			fmt.Fprintln(w, c)
		}
		for _, remark := range report.Remarks {
			fmt.Fprintln(w, "note:", remark)
		}
		return nil
	})); err != nil {
		return resumable(err)
	}
	return nil
}
