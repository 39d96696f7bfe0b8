package lab

import (
	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// requirements holds the versions that are known here against what the
// topology requires. A provider whose nodes run a kernel of their own is asked
// for nothing: that kernel is known only when the nodes are there.
func (l *Lab) requirements(t *topo.Topology) []provision.Finding {
	versions := topo.Versions{Labctl: l.Version}
	if host, ok := l.Provider.(provision.KernelSharer); ok {
		versions.Kernel = host.KernelRelease()
	}
	var findings []provision.Finding
	for _, err := range t.Requires.Check(versions) {
		findings = append(findings, provision.Finding{Severity: provision.Missing, Subject: "requires", Detail: err.Error(), Err: err})
	}
	return findings
}
