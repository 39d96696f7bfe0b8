// Command schemagen writes the JSON schema of topology files from the Go types
// that hold them. It runs in the folder of package topologies.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	out := flag.String("o", "schema.json", "the file to write")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func write(path string) error {
	schema, err := generate(".")
	if err != nil {
		return err
	}
	return os.WriteFile(path, schema, 0o644)
}
