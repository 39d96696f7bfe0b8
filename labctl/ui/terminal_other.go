//go:build !windows

package ui

func enableSequences(uintptr) bool { return true }
