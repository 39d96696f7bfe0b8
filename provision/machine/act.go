package machine

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/native-routing/labctl/provision"
)

//go:embed act.sh
var actScript string

// todo is what a phase wants done: steps for act.sh, and what they mean.
type todo struct {
	steps   []string
	changes []provision.Change
	// again says that the machine has to be looked at anew.
	again bool
	// limit is how long it may take; actLimit where it is 0.
	limit time.Duration
}

// A machine that answers may hang all the same: a disk, a file server, a daemon.
const (
	lookLimit    = 3 * time.Minute
	actLimit     = 5 * time.Minute
	packageLimit = 20 * time.Minute
)

// do adds a step: a word and its arguments. None may be empty or hold a tab or a
// line's end, and none of ours does: names and addresses have been validated,
// everything else is in base64.
func (t *todo) do(words ...string) { t.steps = append(t.steps, strings.Join(words, "\t")) }

// feed runs a command with that input.
func (t *todo) feed(input string, argv ...string) {
	t.do(append([]string{"feed", encode(input)}, argv...)...)
}

func encode(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func (t *todo) changed(verb provision.Verb, node, object, detail string) {
	t.changes = append(t.changes, provision.Change{Verb: verb, Node: node, Object: object, Detail: detail})
}

// halfSuffix ends the name of a file that act.sh has not put in its place yet.
const halfSuffix = ".labctl-new"

const (
	plainMode  = 0o644
	secretMode = 0o600
	rootOwner  = "0:0"
)

// put writes a file where it differs, and says whether it does.
func (t *todo) put(s seen, path, content string, mode int64, owner string) bool {
	if s.has(path, content, mode) {
		return false
	}
	t.write(path, content, mode, owner)
	return true
}

func (t *todo) write(path, content string, mode int64, owner string) {
	t.do(strings.TrimSuffix(fmt.Sprintf("put\t%o\t%s\t%s\t%s", mode, owner, path, encode(content)), "\t"))
}

// keep is put for a file of ours, with the change that it means.
func (t *todo) keep(s seen, node, path, content string) bool {
	_, there := s.Files[path]
	if !t.put(s, path, content, plainMode, rootOwner) {
		return false
	}
	verb := provision.Created
	if there {
		verb = provision.Changed
	}
	t.changed(verb, node, path, "")
	return true
}

// drop removes a file of ours where it is there, and says whether it is.
func (t *todo) drop(s seen, path string) bool {
	if _, there := s.Files[path]; !there {
		return false
	}
	t.do("run", "rm", "-f", path)
	return true
}

// act does what is to be done.
func act(ctx context.Context, h host, t todo) error {
	if len(t.steps) == 0 {
		return nil
	}
	return runWithErrors(ctx, h, cmp.Or(t.limit, actLimit), provision.Command{
		Argv: []string{"sh", "-c", actScript, "sh"}, Stdin: strings.NewReader(strings.Join(t.steps, "\n") + "\n"),
	})
}
