//go:build !linux

// Command bench measures labctl on Linux.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: network namespaces are measured on Linux, and this is "+runtime.GOOS)
	os.Exit(1)
}
