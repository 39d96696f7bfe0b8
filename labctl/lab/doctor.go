package lab

import (
	"context"
	"os/exec"
	"runtime"

	"github.com/native-routing/labctl/provision"
	"github.com/native-routing/labctl/topologies/topo"
)

// Doctor looks at all that this machine has or lacks for the topology, and
// changes nothing.
func (l *Lab) Doctor(ctx context.Context, t *topo.Topology) []provision.Finding {
	findings := l.hindrances(ctx, t)
	for _, tool := range studentTools() {
		if _, err := exec.LookPath(tool.name); err != nil {
			findings = append(findings, provision.Finding{
				Severity: provision.Warning, Subject: tool.name, Cure: "apt-get install " + tool.pkg,
				Detail: "labctl does without it, a student on a node does not",
			})
		}
	}
	return findings
}

// hindrances is what can stop the lab: the provider's own findings, versions
// that the topology requires, and the agent that labctl should carry.
func (l *Lab) hindrances(ctx context.Context, t *topo.Topology) []provision.Finding {
	findings := append(l.Provider.Preflight(ctx, t), l.requirements(t)...)
	if _, err := l.agentFile(runtime.GOARCH); err != nil {
		findings = append(findings, provision.Finding{Severity: provision.Missing, Subject: "agent", Detail: err.Error()})
	}
	return findings
}

// tool is a command of the study, and the Debian package that holds it.
type tool struct{ name, pkg string }

func studentTools() []tool {
	return []tool{{"ip", "iproute2"}, {"ping", "iputils-ping"}, {"tracepath", "iputils-tracepath"}, {"tcpdump", "tcpdump"}, {"curl", "curl"}}
}
