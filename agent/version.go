//go:build linux

package main

import (
	"os"
	"runtime/debug"

	"github.com/native-routing/labctl/agent/api"
)

// ownAPIVersion is what names this agent.
func ownAPIVersion() api.Version { return api.Version{Version: ownVersion(), PID: os.Getpid()} }

// ownVersion is the linker's, or the module's where go install built it.
func ownVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
