//go:build linux

package dbg

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// parseMetrics reads Prometheus' text format (version 0.0.4) and sorts it. Of a
// line it keeps name, labels and value.
func parseMetrics(r io.Reader) ([]sample, error) {
	samples := []sample{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, ok := parseSample(line)
		if !ok {
			return nil, fmt.Errorf("the agent's metrics have a line that is none: %q", line)
		}
		samples = append(samples, s)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the agent's metrics: %w", err)
	}
	sortSamples(samples)
	return samples, nil
}

func parseSample(line string) (sample, bool) {
	s := sample{Labels: map[string]string{}}
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return s, false
	}
	s.Metric, line = line[:end], line[end:]
	if strings.HasPrefix(line, "{") {
		var ok bool
		if line, ok = parseLabels(line[1:], s.Labels); !ok {
			return s, false
		}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return s, false
	}
	var err error
	s.Value, err = strconv.ParseFloat(words[0], 64)
	return s, err == nil
}

// parseLabels reads up to the closing brace and returns what is behind it.
func parseLabels(text string, labels map[string]string) (rest string, ok bool) {
	for {
		text = strings.TrimLeft(text, ", \t")
		if strings.HasPrefix(text, "}") {
			return text[1:], true
		}
		name, value, found := strings.Cut(text, "=")
		if !found || !strings.HasPrefix(value, `"`) {
			return "", false
		}
		content, behind, closed := parseQuoted(value[1:])
		if !closed {
			return "", false
		}
		labels[strings.TrimSpace(name)], text = content, behind
	}
}

// parseQuoted undoes the three escapes that there are: \\, \" and \n.
func parseQuoted(text string) (content, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			if text[i] == 'n' {
				b.WriteByte('\n')
			} else {
				b.WriteByte(text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
