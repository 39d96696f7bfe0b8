package ui

import "golang.org/x/sys/windows"

// enableSequences makes a console interpret control sequences, which consoles
// older than Windows Terminal leave off, and reports whether it does.
func enableSequences(fd uintptr) bool {
	var mode uint32
	if windows.GetConsoleMode(windows.Handle(fd), &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(windows.Handle(fd), mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
