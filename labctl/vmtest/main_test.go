//go:build linux && amd64

package vmtest

import (
	"flag"
	"os"
	"testing"

	"github.com/native-routing/labctl/provision/testbed"
)

// bed is where the tests are.
var bed testbed.Bed

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		os.Exit(m.Run())
	}
	os.Exit(testbed.Enter(func(b testbed.Bed) int {
		bed = b
		return m.Run()
	}))
}
