package inventory

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2/maybe"

	"github.com/native-routing/labctl/provision/machine"
)

// record is the inventory of a lab that is up: every machine that was made into a
// node, or begun to be, and was not cleaned yet.
type record struct {
	Nodes []entry `json:"nodes"`
}

type entry struct {
	Node   string         `json:"node"`
	Access machine.Access `json:"access"`
}

func (r record) entry(node string) (entry, bool) {
	i := slices.IndexFunc(r.Nodes, func(e entry) bool { return e.Node == node })
	if i < 0 {
		return entry{}, false
	}
	return r.Nodes[i], true
}

func (p *Provider) recordFile(lab string) string {
	return filepath.Join(p.options.DataDir, lab, "ssh", "inventory.json")
}

// record is empty where there is none.
func (p *Provider) record(lab string) (record, error) {
	var r record
	text, err := os.ReadFile(p.recordFile(lab))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("the inventory of lab %s: %s: %w (remove the file; labctl up writes it anew)", lab, p.recordFile(lab), err)
	}
	return r, nil
}

// at is the machine, and the user whose files are changed there.
func at(a machine.Access) string {
	return fmt.Sprintf("%s@%s port %d", cmp.Or(a.User, "root"), a.Host, cmp.Or(a.Port, 22))
}

// remember puts a node's machine into the record. A node that is on another
// machine now would leave the old one behind.
func (p *Provider) remember(lab, node string, a machine.Access) error {
	return p.change(lab, func(r *record) error {
		i := slices.IndexFunc(r.Nodes, func(e entry) bool { return e.Node == node })
		switch {
		case i < 0:
			r.Nodes = append(r.Nodes, entry{node, a})
		case at(r.Nodes[i].Access) != at(a):
			return fmt.Errorf("%s is on %s, and is to be on %s (labctl down %s first)", node, at(r.Nodes[i].Access), at(a), node)
		default:
			r.Nodes[i].Access = a
		}
		return nil
	})
}

func (p *Provider) forget(lab, node string) error {
	return p.change(lab, func(r *record) error {
		r.Nodes = slices.DeleteFunc(r.Nodes, func(e entry) bool { return e.Node == node })
		return nil
	})
}

func (p *Provider) change(lab string, edit func(*record) error) error {
	p.records.Lock()
	defer p.records.Unlock()
	r, err := p.record(lab)
	if err != nil {
		return err
	}
	if err := edit(&r); err != nil {
		return err
	}
	path := p.recordFile(lab)
	if len(r.Nodes) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the inventory of lab %s: %w", lab, err)
	}
	if err := maybe.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the inventory of lab %s: %w", lab, err)
	}
	return nil
}
