package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/native-routing/labctl/provision"
)

// What is missing is said once, and keeps its class.
func TestFinding(t *testing.T) {
	gone := errors.New("vagrant is not here")
	for _, test := range []struct {
		finding provision.Finding
		want    string
	}{
		{provision.Finding{Subject: "vagrant", Detail: "vagrant is not here", Cure: "apt-get install vagrant", Err: gone},
			"vagrant: vagrant is not here (apt-get install vagrant)"},
		{provision.Finding{Subject: "privileges", Detail: "no CAP_SYS_ADMIN", Cure: "sudo labctl up", Err: fs.ErrPermission},
			"privileges: no CAP_SYS_ADMIN (sudo labctl up): permission denied"},
		{provision.Finding{Subject: "key", Detail: fmt.Sprint("its key: ", gone), Err: fmt.Errorf("%w", gone)}, "key: its key: vagrant is not here"},
		{provision.Finding{Subject: "kernel", Detail: "too old"}, "kernel: too old"},
	} {
		err := finding(test.finding)
		if err.Error() != test.want || !errors.Is(err, test.finding.Err) && test.finding.Err != nil {
			t.Errorf("%+v: %v, want %s", test.finding, err, test.want)
		}
	}
}
