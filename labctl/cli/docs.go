package cli

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run ./docgen -o ../../docs/commands.md

// Docs returns a page on every command, in Markdown.
func Docs() []byte {
	root := newRoot(&app{Program: Program{Getenv: func(string) string { return "" }}})
	var b bytes.Buffer
	b.WriteString("# Commands\n\nWritten by `make generate` from the commands themselves.\n\n")
	b.WriteString("Exit codes: 0 all is as it should be; 1 it could not be done or could not be told; 2 wrong usage or a bad topology; 3 done, and a check failed. `labctl exec` exits as its command does.\n\n")
	b.WriteString("## Flags of all commands\n\n")
	flagTable(&b, root.PersistentFlags())
	document(&b, root)
	return b.Bytes()
}

func document(b *bytes.Buffer, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		fmt.Fprintf(b, "\n## labctl %s\n\n%s.\n", strings.TrimPrefix(c.CommandPath(), "labctl "), c.Short)
		fmt.Fprintf(b, "\n    %s\n", c.UseLine())
		if c.Long != "" {
			fmt.Fprintf(b, "\n%s\n", c.Long)
		}
		if c.Example != "" {
			fmt.Fprintf(b, "\n```\n%s\n```\n", c.Example)
		}
		if c.LocalFlags().HasAvailableFlags() {
			b.WriteString("\n")
			flagTable(b, c.LocalFlags())
		}
		document(b, c)
	}
}

func flagTable(b *bytes.Buffer, flags *pflag.FlagSet) {
	b.WriteString("| flag | does |\n|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		usage := f.Usage
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.Name != "data-dir" {
			usage += " (default `" + f.DefValue + "`)"
		}
		fmt.Fprintf(b, "| %s | %s |\n", name, usage)
	})
}
