package manifest_test

import (
	"reflect"
	"testing"

	"sigs.k8s.io/yaml"
)

// decodeAsKubernetes is a document as Kubernetes' strict decoder reads it into
// the type of the object, and back.
func decodeAsKubernetes(t *testing.T, document string, like any) string {
	t.Helper()
	object := reflect.New(reflect.TypeOf(like)).Interface()
	if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
