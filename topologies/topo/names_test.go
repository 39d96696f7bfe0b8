package topo

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"a":                     "",
		"native-routing":        "",
		"0":                     "",
		strings.Repeat("a", 32): "",
		strings.Repeat("a", 33): strings.Repeat("a", 33) + " has 33 characters; use 32 at most",
		"":                      `"" is not a name as RFC 1123 has it; use small letters, digits and - only, with a letter or a digit at both ends`,
		"../x":                  "../x is not a name as RFC 1123 has it; use small letters, digits and - only, with a letter or a digit at both ends",
		"x\n":                   `"x\n" is not a name as RFC 1123 has it; use small letters, digits and - only, with a letter or a digit at both ends`,
		"x;$(x)":                "x;$(x) is not a name as RFC 1123 has it; use small letters, digits and - only, with a letter or a digit at both ends",
	} {
		err := CheckName(name)
		if err == nil && want == "" {
			continue
		}
		if err == nil || err.Error() != want || !errors.Is(err, ErrInvalid) {
			t.Errorf("CheckName(%q) = %v, want %s", name, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"role", "podCIDR", "interfaces", "routes", "resources"}
	for word, want := range map[string]string{
		"rolle":                   "role",
		"podCidr":                 "podCIDR",
		"PODCIDR":                 "podCIDR",
		"interface":               "interfaces",
		"route":                   "routes",
		"ruotes":                  "routes",
		"colour":                  "",
		"x":                       "",
		"":                        "",
		strings.Repeat("r", 1000): "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}
