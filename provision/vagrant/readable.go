package vagrant

import (
	"strconv"
	"strings"
	"time"
)

// event is one line of vagrant --machine-readable: time,target,type,data
// (https://developer.hashicorp.com/vagrant/docs/cli/machine-readable).
type event struct {
	Time time.Time
	// Target is the machine; empty where the line concerns all.
	Target string
	Type   string
	Data   []string
}

// unescape undoes what Vagrant does to data: a comma, a newline and a carriage
// return are written so. A backslash of the text itself is not marked.
var unescape = strings.NewReplacer("%!(VAGRANT_COMMA)", ",", `\n`, "\n", `\r`, "\r")

// parseEvent reads one line; false for what is none. Vagrant and its plugins
// print plain text between the events.
func parseEvent(line string) (event, bool) {
	fields := strings.Split(strings.TrimSuffix(line, "\r"), ",")
	if len(fields) < 3 || fields[2] == "" {
		return event{}, false
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || seconds < 0 {
		return event{}, false
	}
	e := event{Time: time.Unix(seconds, 0).UTC(), Target: fields[1], Type: fields[2]}
	for _, data := range fields[3:] {
		e.Data = append(e.Data, unescape.Replace(data))
	}
	return e, true
}

// data is the nth value; empty where there is none.
func (e event) data(n int) string {
	if n >= len(e.Data) {
		return ""
	}
	return e.Data[n]
}

// said is what Vagrant says to a person, without the machine's name that it
// puts before each line; false for events that are for programs.
func (e event) said() (kind, text string, ok bool) {
	if e.Type != "ui" || len(e.Data) < 2 {
		return "", "", false
	}
	lines := strings.Split(e.Data[1], "\n")
	for i, line := range lines {
		for _, prefix := range []string{"==> " + e.Target + ": ", "    " + e.Target + ": "} {
			line = strings.TrimPrefix(line, prefix)
		}
		lines[i] = line
	}
	return e.Data[0], strings.TrimSpace(strings.Join(lines, "\n")), true
}

// done says that an action on a machine has ended well.
func (e event) done(action string) bool {
	return e.Type == "action" && e.data(0) == action && e.data(1) == "end"
}

// What Vagrant says of a machine whose address is known, and of one whose SSH
// answers, with the key that it keeps (boot_waiting and boot_completed in its locale).
const (
	saysWaiting = "Waiting for machine to boot"
	saysReady   = "Machine booted and ready"
)

// says says whether the text begins so.
func (e event) says(text string) bool {
	_, said, ok := e.said()
	return ok && strings.HasPrefix(said, text)
}
