package manifest

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Every rule is about a field that there is, every structure that is honoured
// has rules for all of its fields, and every rule is reached.
func TestRules(t *testing.T) {
	reached := map[string]bool{}
	var walk func(typ reflect.Type, path string)
	walk = func(typ reflect.Type, path string) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.Name() == "IntOrString" {
			return
		}
		first := !reached[typ.Name()]
		reached[typ.Name()] = true
		table, ok := rules[typ.Name()]
		if !ok {
			t.Errorf("%s: the structure %s has no rules", path, typ.Name())
			return
		}
		fields := fieldsOf(typ, nil)
		for name, rule := range table {
			if !slices.ContainsFunc(fields, func(f field) bool { return f.name == name }) {
				t.Errorf("a rule is about %s.%s, which is not there", typ.Name(), name)
			}
			if (rule.cure != "") != (rule.verdict == refused) || (rule.text != "") != (rule.verdict == refused || rule.verdict == unheeded) {
				t.Errorf("the rule for %s.%s lacks words, or has too many", typ.Name(), name)
			}
		}
		for _, f := range fields {
			if _, ok := table[f.name]; !ok && first {
				t.Errorf("%s.%s has no rule of its own", typ.Name(), f.name)
			}
			if first && table[f.name].verdict == honoured {
				walk(typ.FieldByIndex(f.index).Type, path+"."+f.name)
			}
		}
	}
	for _, kind := range []any{appsv1.Deployment{}, corev1.Pod{}, corev1.Service{}, corev1.Namespace{}} {
		walk(reflect.TypeOf(kind), reflect.TypeOf(kind).Name())
	}
	for name := range rules {
		if !reached[name] {
			t.Errorf("nothing leads to the rules of %s", name)
		}
	}
}

// What Kubernetes may add one day is said, not passed over.
func TestUnknownToRules(t *testing.T) {
	if r := ruleOf(reflect.TypeFor[corev1.PodSpec](), "addedNextYear"); r.verdict != unheeded || r.text == "" {
		t.Errorf("ruleOf = %v", r)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"replicas", "selector", "template", "port", "targetPort"}
	for word, want := range map[string]string{
		"replica": "replicas", "Replicas": "replicas", "templat": "template", "ports": "port", "x": "", "": "", "zebra": "",
		"targetport": "targetPort", strings.Repeat("port", 100): "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}
