package check

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The elements of a JUnit report that CI systems agree on
// (https://github.com/testmoapp/junitxml).
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Error   *junitMessage `xml:"error,omitempty"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes the report for CI systems: a suite for each group. An
// expected failure passes, with what was seen as its output.
func (r Report) WriteJUnit(w io.Writer) error {
	var suites junitSuites
	for _, result := range r.Results {
		name := r.Lab + " " + string(result.Group)
		if n := len(suites.Suites); n == 0 || suites.Suites[n-1].Name != name {
			suites.Suites = append(suites.Suites, junitSuite{Name: name})
		}
		suites.Suites[len(suites.Suites)-1].add(result)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suites); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *junitSuite) add(r Result) {
	c := junitCase{Class: s.Name, Name: r.Name}
	message := &junitMessage{Message: "expected " + r.Expected + "; seen " + r.Seen, Text: causesText(r.Causes)}
	switch {
	case r.Outcome == Unknown:
		c.Error = message
		s.Errors++
	case r.Outcome.bad():
		c.Failure = message
		s.Failures++
	case r.Outcome == ExpectedFailure:
		c.Output = "expected failure: " + r.Seen
	}
	s.Tests++
	s.Cases = append(s.Cases, c)
}

func causesText(causes []Cause) string {
	lines := make([]string, len(causes))
	for i, c := range causes {
		lines[i] = c.String()
		if c.Cure != "" {
			lines[i] += "\ncure: " + c.Cure
		}
	}
	return strings.Join(lines, "\n")
}
