package vagrant

import (
	"regexp"
	"strings"
)

// steps turns what Vagrant says (its templates/locales/en.yml, and that of
// vagrant-libvirt) into the words that labctl has for it. The first that the
// text begins with counts.
var steps = []struct{ says, words string }{
	{"Box '", "looking for the box"},
	{"Loading metadata for box", "looking for the box"},
	{"Adding box", "fetching the box"},
	{"Downloading: ", "downloading the box"},
	{"Extracting box", "unpacking the box"},
	{"Verifying box", "checking the box"},
	{"Importing base box", "importing the box"},
	{"Preparing master VM", "importing the box, once for all"},
	{"Cloning VM", "cloning the box's disk"},
	{"Uploading base box image", "copying the box into libvirt's storage"},
	{"Creating image", "making its disk"},
	{"Creating domain", "making the machine"},
	{"Preparing network interfaces", "making its network interfaces"},
	{"Creating shared folders metadata", "making the machine"},
	{"Starting domain", "booting"},
	{"Booting VM", "booting"},
	{"Resuming", "resuming"},
	{"Unpausing", "resuming"},
	{"Waiting for domain to get an IP", "booting, waiting for its address"},
	{saysWaiting, "booting, waiting for SSH"},
	{"Waiting for SSH", "booting, waiting for SSH"},
	{"Inserting generated public key", "giving it an SSH key of its own"},
	{"Vagrant insecure key detected", "giving it an SSH key of its own"},
	{saysReady, "booted"},
	{"Attempting graceful shutdown", "shutting down"},
	{"Attempting direct shutdown", "shutting down"},
	{"Halting domain", "shutting down"},
	{"Forcing shutdown", "switching off"},
	{"Destroying VM", "removing the machine"},
	{"Removing domain", "removing the machine"},
	{"Waiting for cleanup", "interrupted, cleaning up"},
}

var (
	percent   = regexp.MustCompile(`^Progress: ([0-9]+%)`)
	collision = regexp.MustCompile(`^Fixed port collision for 22 => ([0-9]+)\. Now on port ([0-9]+)`)
)

// progress is what an event says of a machine's way up or down; empty for what
// is of no interest to a person who waits.
func progress(e event) string {
	_, text, ok := e.said()
	if !ok {
		return ""
	}
	for _, s := range steps {
		if strings.HasPrefix(text, s.says) {
			return s.words
		}
	}
	if m := percent.FindStringSubmatch(text); m != nil {
		return "the box: " + m[1]
	}
	if m := collision.FindStringSubmatch(text); m != nil {
		return "port " + m[1] + " is taken, SSH is forwarded from " + m[2]
	}
	return ""
}
