package ui

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hinshun/vt10x"
)

// screen is a terminal in memory: it interprets what is written.
type screen struct{ vt vt10x.Terminal }

func newScreen() screen { return screen{vt10x.New(vt10x.WithSize(80, 24))} }

// Write turns newlines into what a terminal driver makes of them.
func (s screen) Write(p []byte) (int, error) {
	if _, err := s.vt.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// text returns the screen's lines without trailing blanks, and the cursor.
func (s screen) text() []byte {
	var b strings.Builder
	for line := range strings.Lines(s.vt.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	s.vt.Lock() // String has its own
	defer s.vt.Unlock()
	cursor := s.vt.Cursor()
	return fmt.Appendf(nil, "%s\ncursor at %d,%d shown %v\n",
		strings.TrimRight(b.String(), "\n"), cursor.X, cursor.Y, s.vt.CursorVisible())
}

func TestLiveProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		p := NewProgress(s, Live)
		networks := p.Start("networks")
		nodes := p.Start("nodes")
		nodes.Update("k8s-ctr")
		golden(t, "two run", s.text())

		time.Sleep(205 * time.Millisecond)
		synctest.Wait()
		nodes.Update(strings.Repeat("a long detail ", 20))
		golden(t, "0.2 s later", s.text())

		nodes.Done("4 created")
		golden(t, "nodes done before networks", s.text())

		s.Write([]byte("^C"))
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		golden(t, "after the echo of an interrupt", s.text())

		networks.Done("2 created")
		p.Note("a note between")
		for i := range 30 {
			p.Start(fmt.Sprintf("step %d", i))
		}
		golden(t, "more than the screen holds", s.text())

		for _, task := range append([]*Task(nil), p.running[2:]...) {
			task.Done("")
		}
		golden(t, "most done", s.text())

		p.Close()
		golden(t, "closed with two at work", s.text())
	})
}

// What is told of a step's parts goes with the step on a terminal, and stays
// line by line elsewhere.
func TestTell(t *testing.T) {
	tell := func(p *Progress, look func(string)) {
		nodes := p.Start("nodes")
		p.Tell("k8s-ctr", "importing the box")
		p.Tell("router", "booting")
		p.Tell("k8s-ctr", "booting")
		p.Tell("k8s-ctr", "booting")
		look("under way")
		nodes.Done("2 created")
		look("done")
		p.Start("links").Done("unchanged")
		p.Close()
		p.Tell("router", "too late")
		look("closed")
	}
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		tell(NewProgress(s, Live), func(when string) { golden(t, "live, "+when, s.text()) })
	})
	var plain, quiet bytes.Buffer
	p := NewProgress(&plain, Plain)
	p.Now = func() time.Time { return time.Time{} }
	tell(p, func(string) {})
	golden(t, "plain", plain.Bytes())
	tell(NewProgress(&quiet, Quiet), func(string) {})
	if quiet.Len() > 0 {
		t.Errorf("quiet, yet it says %q", quiet.String())
	}
}

func TestLiveStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		p := NewProgress(s, Live)
		p.Style = Style{colour: true, unicode: true}
		story(p, time.Sleep)
		golden(t, "at the end", s.text())
	})
}

// TestConcurrentTasks is for the race detector, and counts the lines.
func TestConcurrentTasks(t *testing.T) {
	for _, mode := range []Mode{Plain, Live} {
		var b bytes.Buffer
		p := NewProgress(&b, mode)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				task := p.Start("step")
				task.Update("at work")
				p.Note("beside")
				task.Done("made")
			})
		}
		wg.Wait()
		p.Close()
		if n := strings.Count(b.String(), "made"); n != 50 {
			t.Errorf("mode %d: %d steps ended", mode, n)
		}
	}
}
