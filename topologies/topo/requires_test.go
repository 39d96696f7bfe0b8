package topo

import (
	"errors"
	"testing"
)

func TestRequiresCheck(t *testing.T) {
	shipped := Requires{Labctl: ">= 0.1.0", Kernel: ">= 5.10", Vagrant: ">= 2.3.4"}
	for _, tc := range []struct {
		name     string
		requires Requires
		found    Versions
		want     []string
	}{
		{"all met", shipped, Versions{Labctl: "0.1.0", Kernel: "6.18.44-fc-v669", Vagrant: "Vagrant 2.4.1\n"}, nil},
		{"a kernel of Debian", shipped, Versions{Kernel: "6.1.0-28-cloud-amd64"}, nil},
		{"a kernel of Ubuntu", shipped, Versions{Kernel: "5.15.0-122-generic"}, nil},
		{"a kernel of Microsoft", shipped, Versions{Kernel: "5.15.167.4-microsoft-standard-WSL2"}, nil},
		{"a release candidate", shipped, Versions{Kernel: "5.10.0-rc1+"}, nil},
		{"a build from source", shipped, Versions{Labctl: "(devel)"}, nil},
		{"a version to come", shipped, Versions{Labctl: "0.1.0-dev"}, nil},
		{"with a commit", shipped, Versions{Labctl: "0.1.0-dev+1a2b3c4-dirty"}, nil},
		{"a tag", shipped, Versions{Labctl: "v0.2.0"}, nil},
		{"what go build stamps", shipped, Versions{Labctl: "v0.0.0-20260102150405-abcdefabcdef+dirty"}, nil},
		{"nothing looked for", shipped, Versions{}, nil},
		{"nothing required", Requires{}, Versions{Labctl: "0.0.1", Kernel: "2.6.32", Vagrant: "?"}, nil},
		{"all too old", shipped, Versions{Labctl: "0.0.9", Kernel: "4.19.0-27-amd64", Vagrant: "2.2.19"}, []string{
			`labctl 0.0.9 does not meet ">= 0.1.0" (install a labctl that does)`,
			`kernel 4.19.0-27-amd64 does not meet ">= 5.10" (boot a kernel that does)`,
			`vagrant 2.2.19 does not meet ">= 2.3.4" (install one that does from https://developer.hashicorp.com/vagrant/install)`,
		}},
		{"5.9 is older than 5.10", shipped, Versions{Kernel: "5.9.16"}, []string{`kernel 5.9.16 does not meet ">= 5.10" (boot a kernel that does)`}},
		{"no version", shipped, Versions{Vagrant: "command not found"}, []string{`vagrant "command not found" does not meet ">= 2.3.4" (this is no version number)`}},
		{"two bounds", Requires{Kernel: ">= 5.10, < 6"}, Versions{Kernel: "6.18.44"}, []string{`kernel 6.18.44 does not meet ">= 5.10, < 6" (boot a kernel that does)`}},
		{"a bad constraint", Requires{Kernel: "new"}, Versions{Kernel: "6.18.44"}, []string{`kernel 6.18.44 does not meet "new" (mend the constraint: write it like >= 1.2)`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			errs := tc.requires.Check(tc.found)
			if len(errs) != len(tc.want) {
				t.Fatalf("Check = %q, want %q", errs, tc.want)
			}
			for i, err := range errs {
				var unmet *Unmet
				if err.Error() != tc.want[i] || !errors.As(err, &unmet) {
					t.Errorf("error %d is %s\nwant %s", i, err, tc.want[i])
				}
			}
		})
	}
}
