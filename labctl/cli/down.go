package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lab"
	"github.com/native-routing/labctl/labctl/ui"
)

func newDown(a *app) *cobra.Command {
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Remove everything that labctl made, and prove that nothing is left",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			story := a.story()
			defer story.Close()
			l, err := a.current(story)
			if errors.Is(err, errNoneUp) {
				story.Note("no lab is up: nothing to remove")
				return nil
			}
			if err != nil {
				return err
			}
			report, err := l.Down(cmd.Context())
			story.Close()
			if err != nil {
				return resumable(err)
			}
			return ui.Write(a.Out, output.Format, report, func(w io.Writer) error { return writeDown(w, report) })
		},
	}
	addOutput(cmd, output)
	return cmd
}

func writeDown(w io.Writer, r lab.DownReport) error {
	_, err := fmt.Fprintf(w, "Lab %s is down (%s): no namespace, process, mount or file of it is left.\n", r.Lab, ui.Duration(r.Took))
	return err
}
