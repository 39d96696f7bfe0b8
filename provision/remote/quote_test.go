package remote

import (
	"bytes"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// shells are those that are there; sh always is.
func shells(t testing.TB) []string {
	t.Helper()
	var found []string
	for _, s := range []string{"/bin/sh", "bash", "zsh", "fish", "ksh"} {
		if path, err := exec.LookPath(s); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("no shell")
	}
	return found
}

var awkward = []string{
	"", "plain", "two words", "it's", `back\slash`, `\`, `'`, `\'`, "$HOME", "`id`", "$(id)", "a\nb", "\n", "*", "?", "~", "~root",
	"!!", "!$", "#x", "a;b", "a&b", "a|b", "<x", ">x", "{a,b}", "[a]", "=ls", "%1", "^x", "\t", "-n", "--", "ä\xff\x01", "a=b", `"`, `""`, "\r",
}

// TestQuote compares what shells make of the words with what they were.
func TestQuote(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		said, err := exec.Command(shell, "-c", quoteAll(append([]string{"printf", `%s\0`}, awkward...))).Output()
		if err != nil {
			t.Fatalf("%s: %v", shell, err)
		}
		got := strings.Split(strings.TrimSuffix(string(said), "\x00"), "\x00")
		if !slices.Equal(got, awkward) {
			t.Errorf("%s makes %q of %q", shell, got, awkward)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range awkward {
		f.Add(s, "x")
	}
	available := shells(f)
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a+b, "\x00") {
			return
		}
		for _, shell := range available {
			got, err := exec.Command(shell, "-c", quoteAll([]string{"printf", `%s\0%s`, a, b})).Output()
			if err != nil || !bytes.Equal(got, []byte(a+"\x00"+b)) {
				t.Errorf("%s: %v: %q of %q and %q", shell, err, got, a, b)
			}
		}
	})
}

func TestLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                      string
		become, environment, argv []string
		want                      string // empty for errArgument
	}{
		{"root", nil, nil, []string{"ip", "route"}, "exec env 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'LABCTL_RUN=m' ip route"},
		{
			"sudo", []string{"sudo", "-n", "--"}, []string{"A=b c", "PATH=/x"}, []string{"sh", "-c", "exit 1"},
			"exec sudo -n -- env 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'LABCTL_RUN=m' 'A=b c' 'PATH=/x' sh -c 'exit 1'",
		},
		{"nothing", nil, nil, nil, ""},
		{"a command that env takes for a variable", nil, nil, []string{"a=b"}, ""},
		{"a command that env takes for an option", nil, nil, []string{"-i"}, ""},
		{"a variable without a name", nil, []string{"=x"}, []string{"true"}, ""},
		{"a variable that env takes for a command", nil, []string{"reboot"}, []string{"true"}, ""},
		{"NUL", nil, nil, []string{"a", "b\x00"}, ""},
	} {
		got, err := line(test.become, test.environment, test.argv, "m")
		if got != test.want || (err != nil) != (test.want == "") || err != nil && !errors.Is(err, errArgument) {
			t.Errorf("%s: %s, %v, want %s", test.name, got, err, test.want)
		}
	}
}
