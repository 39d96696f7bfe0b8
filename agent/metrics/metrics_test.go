//go:build linux

package metrics_test

import (
	"fmt"
	"math"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/metrics"
)

// scrape reads once, and gives the text and what sources did wrong.
func scrape(sources ...func(*metrics.Writer)) (text string, wrong []string) {
	r := metrics.NewRegistry(func(err error) { wrong = append(wrong, err.Error()) })
	for _, s := range sources {
		r.Register(s)
	}
	response := httptest.NewRecorder()
	r.ServeHTTP(response, httptest.NewRequest("GET", api.MetricsPath, nil))
	return response.Body.String(), wrong
}

// values has Prometheus' own parser read text: the value by name and labels.
func values(t *testing.T, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("not Prometheus' format: %v\n%s", err, text)
	}
	found := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			key := name
			for _, l := range m.Label {
				key += fmt.Sprintf(" %s=%q", l.GetName(), l.GetValue())
			}
			found[key] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return found
}

func TestText(t *testing.T) {
	text, wrong := scrape(
		func(w *metrics.Writer) {
			w.Counter("cilium_drop_count_total", "Packets dropped.", 3, "reason", "Invalid source ip", "direction", "INGRESS")
			w.Gauge("cilium_bpf_map_pressure", "How full a map is, from 0 to 1.", 0.25, "map_name", "lb4_services_v2")
			w.Gauge("a", "Back\\slash and\nline.", math.Inf(1), "l", "\"\\\n\xffß")
			w.Counter("big_total", "", 1<<60)
		},
		func(w *metrics.Writer) {
			w.Counter("cilium_drop_count_total", "Packets dropped.", 1e15, "direction", "EGRESS", "reason", "No mapping for NAT masquerade")
		},
	)
	const want = `# HELP a Back\\slash and\nline.
# TYPE a gauge
a{l="\"\\\n�ß"} +Inf
# HELP big_total 
# TYPE big_total counter
big_total 1.152921504606847e+18
# HELP cilium_bpf_map_pressure How full a map is, from 0 to 1.
# TYPE cilium_bpf_map_pressure gauge
cilium_bpf_map_pressure{map_name="lb4_services_v2"} 0.25
# HELP cilium_drop_count_total Packets dropped.
# TYPE cilium_drop_count_total counter
cilium_drop_count_total{direction="EGRESS",reason="No mapping for NAT masquerade"} 1000000000000000
cilium_drop_count_total{direction="INGRESS",reason="Invalid source ip"} 3
`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if len(wrong) > 0 {
		t.Errorf("reported: %q", wrong)
	}
	wantValues := map[string]float64{
		`a l="\"\\\n�ß"`: math.Inf(1), "big_total": 1 << 60,
		`cilium_bpf_map_pressure map_name="lb4_services_v2"`:                                0.25,
		`cilium_drop_count_total direction="EGRESS" reason="No mapping for NAT masquerade"`: 1e15,
		`cilium_drop_count_total direction="INGRESS" reason="Invalid source ip"`:            3,
	}
	if diff := cmp.Diff(wantValues, values(t, text)); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
}

// TestMistakes of a source cost the samples that are wrong, and no other.
func TestMistakes(t *testing.T) {
	text, wrong := scrape(func(w *metrics.Writer) {
		w.Gauge("good", "Good.", 1, "a", "b")
		w.Gauge("good", "Good.", 2, "a", "b")
		w.Counter("good", "Good.", 3, "a", "c")
		w.Gauge("1bad", "", 1)
		w.Gauge("", "", 1)
		w.Gauge("bad", "", 1, "label")
		w.Gauge("bad", "", 1, "not-a-label", "x")
		w.Gauge("bad", "", 1, "__reserved", "x")
		w.Gauge("bad", "", 1, "twice", "x", "twice", "y")
	})
	if want := "# HELP good Good.\n# TYPE good gauge\ngood{a=\"b\"} 1\n"; text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	if diff := cmp.Diff([]string{
		`metric "good": {a="b"} is written twice`,
		`metric "good": is a gauge and a counter`,
		`metric "1bad": no name for a metric`,
		`metric "": no name for a metric`,
		`metric "bad": label "label" has no value`,
		`metric "bad": "not-a-label" is no name for a label, or is there twice`,
		`metric "bad": "__reserved" is no name for a label, or is there twice`,
		`metric "bad": "twice" is no name for a label, or is there twice`,
	}, wrong); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
}

func TestProcess(t *testing.T) {
	text, wrong := scrape(metrics.Process("v1.2.3"))
	got := values(t, text)
	open, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	text, _ = scrape(metrics.Process("v1.2.3"))
	later := values(t, text)
	runtime.KeepAlive(ballast)
	for name, want := range map[string][2]float64{ // at least and at most; a race detector doubles memory
		"process_open_fds":                            {1, 1},
		"process_resident_memory_bytes":               {60 << 20, 200 << 20},
		"process_virtual_memory_bytes":                {0, 1 << 30},
		"process_cpu_seconds_total":                   {0, 10},
		"process_max_fds":                             {0, 0},
		"go_goroutines":                               {-1, 1},
		`cilium_version version="v1.2.3"`:             {0, 0},
		`go_info version="` + runtime.Version() + `"`: {0, 0},
	} {
		before, ok := got[name]
		if more := later[name] - before; !ok || before <= 0 || more < want[0] || more > want[1] {
			t.Errorf("%s: %v, then %v more; want %v more", name, before, more, want)
		}
	}
	if began := later["process_start_time_seconds"]; math.Abs(began-float64(time.Now().Unix())) > 60 {
		t.Errorf("process_start_time_seconds %f", began)
	}
	if len(wrong) > 0 {
		t.Errorf("reported: %q", wrong)
	}
}
