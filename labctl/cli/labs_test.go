package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/native-routing/labctl/provision"
)

// hung is a provider that finds what is in files, and waits for a daemon.
type hung struct{ provision.Provider }

func (hung) Labs(ctx context.Context) ([]string, error) {
	<-ctx.Done()
	return []string{"study"}, ctx.Err()
}

func TestMarksInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		labs, err := marks(t.Context(), hung{})
		if !slices.Equal(labs, []string{"study"}) || err != nil || time.Since(start) != lookTime {
			t.Errorf("after %s: %q, %v", time.Since(start), labs, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start = time.Now()
		if _, err := marks(ctx, hung{}); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("interrupted, after %s: %v", time.Since(start), err)
		}
	})
}

// try runs labctl with directories of its own.
func try(ctx context.Context, dir string, args ...string) (out, errs string, code int) {
	var stdout, stderr bytes.Buffer
	p := Program{In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(string) string { return "" }}
	code = Run(ctx, p, append([]string{"--data-dir", dir + "/data", "--run-dir", dir + "/run"}, args...))
	return stdout.String(), stderr.String(), code
}

// TestInterruptedLook: also the look for a lab ends with Ctrl-C.
func TestInterruptedLook(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"status"}, {"topology", "show"}, {"stage"}, {"exec", "router", "--", "true"}} {
		if out, errs, code := try(ctx, t.TempDir(), args...); out != "" || errs != "labctl: interrupted\n" || code != exitTrouble {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, errs)
		}
	}
}
