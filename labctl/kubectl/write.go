package kubectl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/native-routing/labctl/labctl/ui"
)

// The formats that only get has.
const (
	Wide ui.Format = "wide"
	Name ui.Format = "name"
)

// Formats are all that an answer can be written in, the default first.
func Formats() []ui.Format { return []ui.Format{ui.Table, Wide, ui.JSON, ui.YAML, Name} }

// Layout is how an answer is written.
type Layout struct {
	Format ui.Format
	// Labels adds a column of labels to tables; Bare leaves out their header.
	Labels, Bare bool
	// Age gives the age of what came to be then.
	Age func(metav1.Time) string
}

// age is the AGE of an object, or of anything else that has a time.
type age = func(metav1.Time) string

// Write prints an answer as kubectl does. A table of nothing is nothing.
func (a Answer) Write(w io.Writer, l Layout) error {
	switch l.Format {
	case ui.Table, Wide:
		return a.writeTables(w, l)
	case Name:
		for _, g := range a.groups {
			for _, o := range g.objects {
				if _, err := fmt.Fprintf(w, "%s/%s\n", g.kind.grouped(g.kind.singular), o.GetName()); err != nil {
					return err
				}
			}
		}
		return nil
	case ui.JSON, ui.YAML:
		return a.writeWhole(w, l.Format)
	}
	return fmt.Errorf("write objects as %q: no such format", l.Format)
}

// writeWhole prints a single object if one was asked for by its name, and else a list.
func (a Answer) writeWhole(w io.Writer, format ui.Format) error {
	items := []any{}
	for _, g := range a.groups {
		for _, o := range g.objects {
			item, err := plain(o)
			if err != nil {
				return err
			}
			items = append(items, item)
		}
	}
	var whole any = map[string]any{
		"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}, "items": items,
	}
	if a.request.single {
		if len(items) == 0 {
			return nil // the error says that there is none
		}
		whole = items[0]
	}
	if format == ui.YAML {
		text, err := yaml.Marshal(whole)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	text, err := json.MarshalIndent(whole, "", "    ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// plain is an object without its type: kubectl knows none either, and so has all
// fields by their names.
func plain(o metav1.Object) (any, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var item map[string]any
	if err := decoder.Decode(&item); err != nil {
		return nil, err
	}
	return item, nil
}

// writeTables prints a table for each kind of which something was found, with
// an empty line between them.
func (a Answer) writeTables(w io.Writer, l Layout) error {
	kinds := map[string]bool{}
	for _, k := range a.request.asked {
		kinds[k.kind.plural] = true
	}
	written, spaced := false, false
	for _, g := range a.groups {
		// kubectl keeps the column of namespaces once it has one, for nodes too.
		spaced = a.request.all && (spaced || !g.kind.global)
		if len(g.objects) == 0 {
			continue
		}
		if written && !l.Bare {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		written = true
		if err := g.writeTable(w, l, len(kinds) > 1, spaced); err != nil {
			return err
		}
	}
	return nil
}

// The measures of kubectl's tables.
const (
	cellWidth = 6
	tabWidth  = 4
	padding   = 3
)

// writeTable prints one table: prefixed puts the kind before each name, spaced
// begins with the namespace.
func (g group) writeTable(w io.Writer, l Layout, prefixed, spaced bool) error {
	t := tabwriter.NewWriter(w, cellWidth, tabWidth, padding, ' ', 0)
	if !l.Bare {
		writeRow(t, g.line(l, spaced, "NAMESPACE", g.kind.header(), "LABELS"))
	}
	for _, o := range g.objects {
		cells := g.kind.row(o, l.Age)
		if prefixed {
			cells[0] = g.kind.grouped(g.kind.singular) + "/" + cells[0]
		}
		writeRow(t, g.line(l, spaced, o.GetNamespace(), cells, labels.FormatLabels(o.GetLabels())))
	}
	return t.Flush()
}

// line chooses the cells that a layout has.
func (g group) line(l Layout, spaced bool, namespace string, cells []string, ownLabels string) []string {
	var line []string
	if spaced {
		line = append(line, namespace)
	}
	for i, c := range g.kind.columns {
		if !c.wide || l.Format == Wide {
			line = append(line, cells[i])
		}
	}
	if l.Labels {
		line = append(line, ownLabels)
	}
	return line
}

func (k kind) header() []string {
	names := make([]string, len(k.columns))
	for i, c := range k.columns {
		names[i] = c.name
	}
	return names
}

// writeRow keeps a cell from breaking the table: kubectl cuts it at its first line.
func writeRow(w io.Writer, cells []string) {
	for i, cell := range cells {
		if end := strings.IndexAny(cell, "\f\n\r"); end >= 0 {
			cell = cell[:end] + "..."
		}
		cells[i] = cell
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // a tabwriter tells of it when it is flushed
}
