//go:build linux && amd64

package vmtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/native-routing/labctl/labctl/explain"
)

// testExplain follows echoes from machine to machine, whose clocks are their own:
// one that the router sends out of its uplink, and one that is answered.
func testExplain(u user) {
	report, code := u.explain("k8s-ctr", "172.20.2.1")
	if code != 3 || report.Verdict.Arrives || report.Headline != "" {
		u.t.Errorf("exit %d, headline %q, verdict: %s", code, report.Headline, report.Verdict.Sentence)
	}
	if !strings.Contains(report.Verdict.Sentence, "router sends it out of eth0") {
		u.t.Errorf("the verdict does not name the router's uplink: %s", report.Verdict.Sentence)
	}
	u.ladder(report, []string{"k8s-ctr eth1 Out", "router eth1 In", "router eth0 Out"}, nil)

	report, code = u.explain("k8s-ctr", "192.168.20.100")
	if code != 0 || !report.Verdict.Arrives || report.Headline != "" {
		u.t.Errorf("exit %d, headline %q, verdict: %s", code, report.Headline, report.Verdict.Sentence)
	}
	u.ladder(report,
		[]string{"k8s-ctr eth1 Out", "router eth1 In", "router eth2 Out", "k8s-w0 eth1 In"},
		[]string{"k8s-w0 eth1 Out", "router eth2 In", "router eth1 Out", "k8s-ctr eth1 In"})
}

func (u user) explain(from, to string) (report explain.Report, code int) {
	u.t.Helper()
	out, errs, code := u.try("explain", from, to, "-o", "json", "--timeout", "5s")
	decode(u.t, out+errs, out, &report)
	return report, code
}

// ladder wants the one way of a report to have been seen so.
func (u user) ladder(r explain.Report, there, back []string) {
	u.t.Helper()
	if len(r.Observed) != 1 {
		u.t.Fatalf("%d ways were seen", len(r.Observed))
	}
	seen := r.Observed[0]
	var way, reply []string
	for _, rung := range seen.There {
		way = append(way, direction(rung.Node, rung.Device, rung.Outgoing))
	}
	for _, rung := range seen.Back {
		reply = append(reply, direction(rung.Node, rung.Device, rung.Outgoing))
	}
	if !slices.Equal(way, there) || !slices.Equal(reply, back) {
		u.t.Errorf("seen there %q and back %q, want %q and %q", way, reply, there, back)
	}
}

func direction(node, device string, outgoing bool) string {
	if outgoing {
		return fmt.Sprintf("%s %s Out", node, device)
	}
	return fmt.Sprintf("%s %s In", node, device)
}

// testCapture shows the same echoes on two machines, as tcpdump reads them from
// the file that the other capture writes.
func testCapture(u user) {
	said := u.start("exec", "k8s-ctr", "--", "ping", "-q", "-i", "0.2", "192.168.10.200")
	lines := u.start("capture", "-i", "eth1", "k8s-ctr", "router", "icmp")
	for _, want := range []string{
		"k8s-ctr eth1 Out IP 192.168.10.100 > 192.168.10.200: ICMP echo request",
		"router eth1 In IP 192.168.10.100 > 192.168.10.200: ICMP echo request",
		"router eth1 Out IP 192.168.10.200 > 192.168.10.100: ICMP echo reply",
		"k8s-ctr eth1 In IP 192.168.10.200 > 192.168.10.100: ICMP echo reply",
	} {
		u.eventually("captured: "+want, func() (string, bool) {
			seen := lines()
			return seen + said(), strings.Contains(strings.Join(strings.Fields(seen), " "), want)
		})
	}
	u.must("capture", "-c", "4", "-w", "echoes.pcapng", "-i", "eth1", "router", "icmp")
	if text := run(u.t, "tcpdump", "-nn", "-r", u.dir+"/echoes.pcapng"); strings.Count(text, "ICMP echo re") != 4 {
		u.t.Errorf("tcpdump reads:\n%s", text)
	}
}
