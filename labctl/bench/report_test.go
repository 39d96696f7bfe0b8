//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	floor := samples{0.000040}
	r := Report{Rows: []Row{
		timed("up", samples{0.2, 0.4, 0.3}).atMost(0.5),
		timed("packet", samples{55e-9}).against(samples{26e-9}, "empty").ratioAtMost(1.02),
		timed("connect", samples{0.000020}).against(floor, "other").faster(1.1),
		timed("connect", samples{0.000039}).against(floor, "other").faster(1.1),
		absent("nft", "nft is missing"),
	}}
	var out bytes.Buffer
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(out.String(), "\n\n")
	var got []string
	for line := range strings.Lines(table) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	if diff := cmp.Diff([]string{
		"what runs median min … max per node floor min … max ratio goal floor is",
		"up 3 300 ms 200 ms … 400 ms 500 ms met",
		"packet 1 55 ns 55 ns … 55 ns 26 ns 26 ns … 26 ns 2.12 1.02x MISSED empty",
		"connect 1 20.0 µs 20.0 µs … 20.0 µs 40.0 µs 40.0 µs … 40.0 µs 0.50 1.1x faster: 2.00x met other",
		"connect 1 39.0 µs 39.0 µs … 39.0 µs 40.0 µs 40.0 µs … 40.0 µs 0.97 1.1x faster: 1.03x MISSED other",
		"nft not measured: nft is missing",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseBench(t *testing.T) {
	got := parseBench([]byte(`goos: linux
BenchmarkDatapath-2   	       1	         1.654 direct/empty	         1.846 established/empty
--- BENCH: BenchmarkDatapath-2
    bench_test.go:85: empty                    26 ns
    bench_test.go:85: established, 10,000      52 ns
BenchmarkChange/service-decoded-2         	    3812	    305673 ns/op
BenchmarkChange/service-decoded-2         	    3812	    305674 ns/op
PASS
ok  	github.com/native-routing/labctl/bpf	1.502s
`))
	ns := 1e-9
	if diff := cmp.Diff(results{
		"BenchmarkDatapath direct/empty": {1.654}, "BenchmarkDatapath established/empty": {1.846},
		"empty": {26 * ns}, "established, 10,000": {52 * ns},
		"BenchmarkChange/service-decoded ns/op": {305673, 305674},
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
