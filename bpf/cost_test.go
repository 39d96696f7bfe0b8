//go:build linux

package bpf

import "testing"

// TestVerifierCost: what the verifier looks at is most of the time that a node's
// programs take to load. The limits leave room for kernels that see it in
// another way; from_netdev was at 127,000 instructions when its parser was a part
// of it.
func TestVerifierCost(t *testing.T) {
	if testing.Short() {
		t.Skip("needs root")
	}
	total := uint32(0)
	for name, program := range load(t, testOptions).Programs {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		count, known := info.VerifiedInstructions()
		if !known {
			t.Skip("this kernel does not tell (Linux 5.16)")
		}
		t.Logf("%-12s %6d", name, count)
		if total += count; count > 40000 {
			t.Errorf("%s: the verifier looked at %d instructions", name, count)
		}
	}
	if total > 100000 {
		t.Errorf("the verifier looked at %d instructions of all programs", total)
	}
}
