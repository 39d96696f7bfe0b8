//go:build linux && !amd64

package main

import (
	"context"
	"io"
)

const vmsCommand = "vms"

func measureVMs(context.Context, *rig) ([]Row, error) {
	return []Row{absent("up and verify on VMs", "the test box is for amd64")}, nil
}

func vmsMain([]string, io.Writer, io.Writer) int { return exitUsage }
