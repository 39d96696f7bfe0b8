package manifest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/native-routing/labctl/labctl/manifest"
)

// Files that are made to cost much are refused after little work.
func TestHostile(t *testing.T) {
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeSelector: &s {a: b}, containers: [`
	for name, c := range map[string]struct{ text, want string }{
		"too large":         {strings.Repeat("#\n", 1<<20), "the file is larger than 1024 KiB"},
		"no UTF-8":          {"kind: Pod\nname: \xff\n", "byte 0xff is no UTF-8"},
		"too many mistakes": {strings.Repeat("---\nkind: Secret\n", 600), "the lab does not honour Secret"},
		"aliases": {
			"c: &c {name: a, image: nicolaka/netshoot, env: &e [" + strings.Repeat("{name: a, value: b},", 500) + "]}\n" +
				"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [" + strings.Repeat("*c,", 500) + "]}\n",
			"aliases make the object grow by more than 20000 values",
		},
		"alias within itself": {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: &s {containers: [*s, *s]}", "there is no such field"},
		"list within itself":  {"kind: List\napiVersion: v1\nitems: &i [*i]", "an item is a list, and an object is wanted"},
		"deep":                {pod + strings.Repeat("[", 9000), "this is no YAML"},
		"terminal":            {"kind: \"\\e[31mPod\"\napiVersion: v1", `\x1b[31mPod`},
		"key is a list":       {"apiVersion: v1\nkind: Pod\n? [a]\n: b\n", "a key is a list"},
	} {
		_, _, err := manifest.Decode("hostile.yaml", strings.NewReader(c.text))
		if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.200v, want %q", name, err, c.want)
		}
		var mistakes manifest.Errors
		if errors.As(err, &mistakes) && len(mistakes) > 501 {
			t.Errorf("%s: %d mistakes", name, len(mistakes))
		}
		if text := fmt.Sprint(err); strings.ContainsRune(text, 0x1b) {
			t.Errorf("%s: the message holds an escape: %q", name, text)
		}
	}
}

// Each mistake can be matched by itself.
func TestErrorsAs(t *testing.T) {
	_, _, err := manifest.Decode("a.yaml", strings.NewReader("kind: Secret"))
	var m *manifest.Mistake
	if !errors.As(err, &m) || m.Line != 1 || m.Document != 1 || m.Field != "kind" || !errors.Is(m, manifest.ErrInvalid) {
		t.Errorf("errors.As = %+v", m)
	}
}
