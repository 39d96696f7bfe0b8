// Package embedded holds the agent's executables, for labctl to deploy.
package embedded

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// The executables are built by make and not committed; README keeps the
// directory, so that the module builds without them.
//
//go:embed bin
var files embed.FS

// ErrAbsent is an executable that this labctl was built without.
var ErrAbsent = errors.New("no agent embedded")

// Binary returns the agent for linux on arch, in GOARCH's words: amd64 or
// arm64. It returns an error that matches [ErrAbsent] where there is none.
func Binary(arch string) ([]byte, error) { return binary(files, arch) }

func binary(files fs.FS, arch string) ([]byte, error) {
	content, err := fs.ReadFile(files, "bin/agent-linux-"+arch)
	if err != nil {
		return nil, absentError(arch)
	}
	return content, nil
}

type absentError string

func (arch absentError) Error() string {
	return fmt.Sprintf("this labctl carries no agent for linux/%s: build it with \"make build\"", string(arch))
}

func (absentError) Is(target error) bool { return target == ErrAbsent }
