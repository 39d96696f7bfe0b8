//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"github.com/native-routing/labctl/agent/api"
)

// versionOf returns what names this agent. The executable is hashed when it is
// first asked for, which takes some milliseconds.
func versionOf() func() api.Version {
	return sync.OnceValue(func() api.Version {
		return api.Version{Version: ownVersion(), Build: ownHash(), PID: os.Getpid()}
	})
}

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

// ownHash is that of the running program, even where its file was replaced;
// empty where it cannot be read.
func ownHash() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
