package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"github.com/native-routing/labctl/provision"
)

// carried are the agents that were taken out of labctl, by architecture: each
// is many megabytes, and all nodes of a lab want the same one or two.
type carried struct {
	mu    sync.Mutex
	files map[string]provision.File
}

// agentFile is the agent for an architecture, ready to put on a node.
func (l *Lab) agentFile(arch string) (provision.File, error) {
	l.carried.mu.Lock()
	defer l.carried.mu.Unlock()
	if f, ok := l.carried.files[arch]; ok {
		return f, nil
	}
	content, err := l.Agent(arch)
	if err != nil {
		return provision.File{}, err
	}
	sum := sha256.Sum256(content)
	f := provision.File{Path: "agent", Mode: 0o755, Content: content, SHA256: hex.EncodeToString(sum[:])}
	if l.carried.files == nil {
		l.carried.files = map[string]provision.File{}
	}
	l.carried.files[arch] = f
	return f, nil
}
