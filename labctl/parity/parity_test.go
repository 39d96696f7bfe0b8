package parity

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/native-routing/labctl/labctl/check"
)

func result(group check.Group, name string, outcome check.Outcome, expected, seen string) check.Result {
	return check.Result{Group: group, Node: "router", Name: name, Outcome: outcome, Expected: expected, Seen: seen}
}

func TestCompare(t *testing.T) {
	left := Side{"spaces", check.Report{Results: []check.Result{
		result(check.Interfaces, "router eth0", check.OK, "10.0.2.15/24, mtu 1500, up", "10.0.2.15/24, mtu 1500, up"),
		result(check.FIB, "router → k8s-w0 pods", check.OK, "via 10.0.2.2 dev eth0 src 10.0.2.15", "via 10.0.2.2 dev eth0 src 10.0.2.15"),
		result(check.Ping, "router → k8s-w0", check.OK, "reply", "reply in 0.04 ms"),
		result(check.Ping, "router → k8s-w1", check.OK, "reply", "reply in 0.04 ms"),
		result(check.Routes, "router", check.OK, "8 routes", "8 routes"),
		result(check.Tracepath, "router → k8s-w0", check.OK, "1 hop", "1 hop"),
	}}}
	right := Side{"vms", check.Report{Results: []check.Result{
		result(check.Interfaces, "router eth0", check.OK, "192.168.121.7/24, mtu 1500, up", "192.168.121.7/24, mtu 1500, up"),
		result(check.FIB, "router → k8s-w0 pods", check.Failed, "via 192.168.121.1 dev eth0", "unreachable"),
		result(check.Ping, "router → k8s-w0", check.OK, "reply", "reply in 1.7 ms"),
		result(check.Ping, "router → k8s-w1", check.Failed, "reply", "lost"),
		result(check.Routes, "router", check.OK, "9 routes", "9 routes"),
		result(check.DNS, "router → webpod", check.OK, "10.96.7.39", "10.96.7.39"),
	}}}
	want := Report{Left: "spaces", Right: "vms", Same: 1, Differences: []Difference{
		{check.Interfaces, "router eth0", Seen{check.OK, "10.0.2.15/24, mtu 1500, up", "10.0.2.15/24, mtu 1500, up"},
			Seen{check.OK, "192.168.121.7/24, mtu 1500, up", "192.168.121.7/24, mtu 1500, up"},
			"the uplink is the provider's: libvirt gives each VM an address of its own, VirtualBox the same to all"},
		{check.FIB, "router → k8s-w0 pods", Seen{check.OK, "via 10.0.2.2 dev eth0 src 10.0.2.15", "via 10.0.2.2 dev eth0 src 10.0.2.15"},
			Seen{check.Failed, "via 192.168.121.1 dev eth0", "unreachable"}, ""},
		{check.Ping, "router → k8s-w1", Seen{check.OK, "reply", "reply in 0.04 ms"}, Seen{check.Failed, "reply", "lost"}, ""},
		{check.Routes, "router", Seen{check.OK, "8 routes", "8 routes"}, Seen{check.OK, "9 routes", "9 routes"},
			"the uplink is the provider's, and so are the routes that come with it"},
		{check.Tracepath, "router → k8s-w0", Seen{check.OK, "1 hop", "1 hop"}, Seen{}, ""},
		{check.DNS, "router → webpod", Seen{}, Seen{check.OK, "10.96.7.39", "10.96.7.39"}, ""},
	}}
	got := Compare(left, right)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := got.Unexplained(); n != 4 {
		t.Errorf("%d are unexplained", n)
	}
	if self := Compare(left, left); self.Same != len(left.Report.Results) || len(self.Differences) > 0 {
		t.Errorf("with itself: %+v", self)
	}
}

// TestSameUplink: what an uplink would explain is not explained by one that is the same.
func TestSameUplink(t *testing.T) {
	side := func(name, uplink string, outcome check.Outcome, routes string) Side {
		return Side{name, check.Report{Results: []check.Result{
			result(check.Interfaces, "router eth0", outcome, uplink, uplink), result(check.Routes, "router", check.OK, routes, routes),
		}}}
	}
	left := side("left", "10.0.2.15/24", check.OK, "8 routes")
	if n := Compare(left, side("right", "10.0.2.15/24", check.OK, "9 routes")).Unexplained(); n != 1 {
		t.Errorf("the same uplink: %d are unexplained, want the routes", n)
	}
	if n := Compare(left, side("right", "192.168.121.7/24", check.Failed, "9 routes")).Unexplained(); n != 2 {
		t.Errorf("an uplink that is not as it should be: %d are unexplained, want both", n)
	}
}

// TestOtherWay: the uplinks explain a packet that leaves by both, and none that
// leaves by one alone.
func TestOtherWay(t *testing.T) {
	side := func(name, way string) Side {
		return Side{name, check.Report{Results: []check.Result{result(check.FIB, "router → k8s-w0 pods", check.OK, way, way)}}}
	}
	spaces, link := side("spaces", "via 10.0.2.2 dev eth0 src 10.0.2.15"), side("link", "dev eth1")
	for _, c := range []struct {
		left, right Side
		want        int
	}{
		{spaces, side("vms", "via 192.168.121.1 dev eth0 src 192.168.121.7"), 0},
		{spaces, link, 1},
		{link, spaces, 1},
	} {
		if n := Compare(c.left, c.right).Unexplained(); n != c.want {
			t.Errorf("%s and %s: %d are unexplained, want %d", c.left.Name, c.right.Name, n, c.want)
		}
	}
}
