// Package metrics writes the agent's metrics in Prometheus' text format
// (github.com/prometheus/docs, instrumenting/exposition_formats). Nothing is
// kept between two scrapes: each source is asked when somebody reads.
package metrics

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is of what a [Writer] writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Writer collects the samples of one scrape. A metric may be written from
// several places, each time with other labels.
type Writer struct {
	families map[string]*family
	errors   []error
}

// family is one metric with all its samples.
type family struct {
	kind, help string
	samples    map[string]string // the value by the labels, as they are printed
}

// Gauge writes a value that goes up and down. Labels are names and values in
// turn, and must be others each time.
func (w *Writer) Gauge(name, help string, value float64, labels ...string) {
	w.add(name, "gauge", help, value, labels)
}

// Counter writes a value that only grows while its source lives; name ends in
// _total. Labels are as with [Writer.Gauge].
func (w *Writer) Counter(name, help string, value float64, labels ...string) {
	w.add(name, "counter", help, value, labels)
}

// add keeps a mistake of a source away from the reader, who could not read any
// metric otherwise.
func (w *Writer) add(name, kind, help string, value float64, labels []string) {
	printed, err := printLabels(labels)
	f := w.families[name]
	switch {
	case err != nil:
	case !validName(name, ":"):
		err = fmt.Errorf("no name for a metric")
	case f == nil:
		if w.families == nil {
			w.families = map[string]*family{}
		}
		f = &family{kind, help, map[string]string{}}
		w.families[name] = f
	case f.kind != kind:
		err = fmt.Errorf("is a %s and a %s", f.kind, kind)
	default:
		if _, twice := f.samples[printed]; twice {
			err = fmt.Errorf("%s is written twice", printed)
		}
	}
	if err != nil {
		w.errors = append(w.errors, fmt.Errorf("metric %q: %w", name, err))
		return
	}
	f.samples[printed] = printValue(value)
}

// writeTo prints the metrics by name, and each one's samples by their labels.
func (w *Writer) writeTo(out io.Writer) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.families)) {
		f := w.families[name]
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, helpEscapes.Replace(f.help), name, f.kind)
		for _, labels := range slices.Sorted(maps.Keys(f.samples)) {
			fmt.Fprintf(&b, "%s%s %s\n", name, labels, f.samples[labels])
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// printLabels sorts them by name: {direction="INGRESS",reason="…"}.
func printLabels(labels []string) (string, error) {
	if len(labels)%2 != 0 {
		return "", fmt.Errorf("label %q has no value", labels[len(labels)-1])
	}
	pairs := make([]string, 0, len(labels)/2)
	seen := make(map[string]bool, len(labels)/2)
	for i := 0; i < len(labels); i += 2 {
		name, value := labels[i], labels[i+1]
		if !validName(name, "") || strings.HasPrefix(name, "__") || seen[name] {
			return "", fmt.Errorf("%q is no name for a label, or is there twice", name)
		}
		seen[name] = true
		pairs = append(pairs, name+`="`+labelEscapes.Replace(strings.ToValidUTF8(value, "�"))+`"`)
	}
	if len(pairs) == 0 {
		return "", nil
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}", nil
}

// validName says whether name is letters, digits, _ and what else is allowed,
// and begins with no digit.
func validName(name, also string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || strings.IndexByte(also, c) >= 0
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

func printValue(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.FormatInt(int64(v), 10)
	default:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
}
