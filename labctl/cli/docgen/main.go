// Command docgen writes the page on labctl's commands.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/native-routing/labctl/labctl/cli"
)

func main() {
	out := flag.String("o", "commands.md", "the file to write")
	flag.Parse()
	if err := os.WriteFile(*out, cli.Docs(), 0o644); err != nil {
		log.Fatal(err)
	}
}
