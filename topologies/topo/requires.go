package topo

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/go-version"
	"golang.org/x/mod/module"
)

// Versions are what was found on a machine. An empty one was not looked for.
type Versions struct {
	// Labctl is as debug.ReadBuildInfo gives it: 0.1.0, v0.1.0, (devel) or a pseudo-version.
	Labctl string
	// Kernel is the release as uname(2) gives it, such as 6.1.0-28-cloud-amd64.
	Kernel string
	// Vagrant is what vagrant --version prints, with or without the program's name.
	Vagrant string
}

// Unmet is a requirement that a found version does not meet.
type Unmet struct {
	Program    string // labctl, kernel or vagrant
	Constraint string
	Found      string
	Cure       string
}

// Error names the constraint, the version and the cure.
func (u *Unmet) Error() string {
	return fmt.Sprintf("%s %s does not meet %q (%s)", u.Program, show(u.Found), u.Constraint, u.Cure)
}

// requirement is one line of requires.
type requirement struct{ program, constraint string }

func (r Requires) each() []requirement {
	return []requirement{{"labctl", r.Labctl}, {"kernel", r.Kernel}, {"vagrant", r.Vagrant}}
}

// Check compares the requirements with what was found. Each error is an
// [*Unmet]. Of a kernel and of a pre-release only the numeric core counts, so
// 0.1.0-dev meets ">= 0.1.0"; a development build of labctl without a version
// meets everything.
func (r Requires) Check(found Versions) []error {
	versions := map[string]string{"labctl": found.Labctl, "kernel": found.Kernel, "vagrant": found.Vagrant}
	var errs []error
	for _, r := range r.each() {
		v := versions[r.program]
		if r.constraint == "" || v == "" || r.program == "labctl" && isDevelopment(v) {
			continue
		}
		if cure := r.unmet(v); cure != "" {
			errs = append(errs, &Unmet{Program: r.program, Constraint: r.constraint, Found: v, Cure: cure})
		}
	}
	return errs
}

// isDevelopment recognises what the go command stamps on builds without a tag.
func isDevelopment(v string) bool {
	return v == "(devel)" || module.IsPseudoVersion(v) || module.IsPseudoVersion("v"+v)
}

// unmet returns the cure where v does not do; empty where it does.
func (r requirement) unmet(v string) string {
	constraints, err := version.NewConstraint(r.constraint)
	if err != nil {
		return "mend the constraint: write it like >= 1.2"
	}
	core := numericCore(v)
	if core == "" {
		return "this is no version number"
	}
	parsed, err := version.NewVersion(core)
	if err != nil {
		return "this is no version number"
	}
	if constraints.Check(parsed) {
		return ""
	}
	switch r.program {
	case "kernel":
		return "boot a kernel that does"
	case "vagrant":
		return "install one that does from https://developer.hashicorp.com/vagrant/install"
	}
	return "install a labctl that does"
}

var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)*`)

// numericCore reduces 6.18.44-fc-v669, v0.1.0-dev or "Vagrant 2.4.1" to the
// first dotted numbers; empty where there are none.
func numericCore(v string) string { return numbers.FindString(v) }

// checkConstraint says whether go-version understands the constraint.
func checkConstraint(constraint string) error {
	if len(constraint) > maxShown || strings.ContainsAny(constraint, "\n\r\t") {
		return ErrInvalid
	}
	_, err := version.NewConstraint(constraint)
	return err
}
