package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/agent/embedded"
	"github.com/native-routing/labctl/labctl/ui"
)

// versionReport says which labctl this is.
type versionReport struct {
	Version  string   `json:"version"`
	Revision string   `json:"revision,omitempty"`
	Go       string   `json:"go"`
	Platform string   `json:"platform"`
	Agents   []string `json:"agents"` // the architectures that this labctl carries an agent for
}

func newVersion(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "version",
		Short: "The version of labctl and of the agents that it carries",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r := a.versionReport()
			return ui.Write(a.Out, output.Format, r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "labctl %s (%s, %s, agents for %v)\n", r.Version, r.Go, r.Platform, r.Agents)
				return err
			})
		},
	}
	addOutput(cmd, output)
	return cmd
}

func (a *app) versionReport() versionReport {
	r := versionReport{Version: a.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Agents: []string{}}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				r.Revision = s.Value
			}
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := embedded.Binary(arch); err == nil {
			r.Agents = append(r.Agents, arch)
		}
	}
	return r
}
