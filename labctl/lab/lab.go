// Package lab is the core of labctl: it brings a lab up and down, says how it
// stands and verifies it, on whatever provider it is given.
package lab

import (
	"errors"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/provision"
)

// Errors to match with errors.Is.
var (
	// ErrNoLab is a lab that was never brought up.
	ErrNoLab = errors.New("no such lab")
	// ErrUnmet is a machine that lacks what the lab needs.
	ErrUnmet = errors.New("this machine cannot carry the lab")
)

// Lab is one lab, by its name, on one provider. Every exported field is set by
// who makes it.
type Lab struct {
	Name     string
	Provider provision.Provider
	Store    Store
	// Agent returns the agent's executable for an architecture, in Go's words.
	Agent func(arch string) ([]byte, error)
	// Version is labctl's own.
	Version string
	// Story is told what is under way.
	Story Story
	// Say puts what is found into the reader's language.
	Say lang.Printer

	carried carried
}

// Story is told what a long piece of work does. Its methods may be called at once.
type Story interface {
	// Start begins a step. Exactly one of the step's ends is called.
	Start(step string) Step
	// Note is a remark beside the steps.
	Note(text string)
}

// Step is one step under way.
type Step interface {
	Update(detail string)
	Done(detail string)
	Fail(err error)
}
