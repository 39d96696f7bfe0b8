//go:build linux

package bpf

import "testing"

// TestDigest: what changes the programs or their maps changes the digest, and
// nothing else does.
func TestDigest(t *testing.T) {
	digest := func(o Options) string {
		t.Helper()
		d, err := Digest(o)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := digest(testOptions)
	if again := digest(testOptions); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if implied, said := digest(Options{}), digest(Options{Sizes: DefaultSizes(), MaglevSize: DefaultMaglevSize}); implied != said {
		t.Errorf("defaults that are implied: %s, and said: %s", implied, said)
	}
	for name, change := range map[string]func(*Options){
		"masquerade": func(o *Options) { o.Masquerade = !o.Masquerade },
		"features":   func(o *Options) { o.Features.KernelContext = !o.Features.KernelContext },
		"sizes":      func(o *Options) { o.Sizes.Flows++ },
	} {
		o := testOptions
		change(&o)
		if digest(o) == first {
			t.Errorf("%s changed, the digest did not", name)
		}
	}
	if _, err := Digest(Options{NodePortMin: 2, NodePortMax: 1}); err == nil {
		t.Error("an empty range of NodePorts has a digest")
	}
}
