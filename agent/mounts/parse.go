// Package mounts gives a process of a node or of a pod its own view of the
// machine's files: a /sys that shows its network namespace, and files of its
// own over those in /etc. It works on the calling OS thread, whose children
// inherit what it did: lock the thread, and let it end with the work.
package mounts

import (
	"strconv"
	"strings"
)

// Point is one mount, a line of /proc/<pid>/mountinfo (proc(5)).
type Point struct {
	// ID is the mount's number, Parent that of the mount it is on.
	ID, Parent int
	// Root is the directory of the mounted file system that is seen at Path.
	Root string
	Path string
	// Kind is the file system's type, such as sysfs.
	Kind string
	// Source is what was mounted: a device, or any word.
	Source string
}

// Parse reads the text of a mountinfo file. It passes over a line that is none.
func Parse(text string) []Point {
	var points []Point
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 7 {
			continue
		}
		p := Point{Root: unescape(fields[3]), Path: unescape(fields[4])}
		p.ID, _ = strconv.Atoi(fields[0])
		p.Parent, _ = strconv.Atoi(fields[1])
		for i, f := range fields {
			if f == "-" && i+2 < len(fields) {
				p.Kind, p.Source = fields[i+1], unescape(fields[i+2])
				break
			}
		}
		points = append(points, p)
	}
	return points
}

// unescape undoes the octal form of blanks and backslashes.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Top is the last mount on path, which hides those before it.
func Top(points []Point, path string) (top Point, ok bool) {
	for _, p := range points {
		if p.Path == path {
			top, ok = p, true
		}
	}
	return top, ok
}
