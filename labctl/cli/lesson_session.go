package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/term"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/labctl/ui"
)

// session is a student in a lesson.
type session struct {
	*app
	name     string
	lesson   *lesson.Lesson
	progress lesson.Progress
	record   string // the file of progress
	at       int
}

func (s *session) step() lesson.Step { return s.lesson.Steps[s.at] }

// save records where the student is.
func (s *session) save() error {
	s.progress.Step = s.step().ID
	return s.progress.Save(s.record)
}

// columns is how wide a text may be: as the terminal, and no wider than is
// comfortable to read.
func (s *session) columns() int {
	if f, ok := s.Out.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return min(max(width-2, 30), textWidth)
		}
	}
	return textWidth
}

func (s *session) print(w io.Writer, blocks []lesson.Block) error {
	_, err := fmt.Fprintln(w, strings.Join(lesson.Show(blocks, ui.NewStyle(s.Out, s.Getenv), s.columns()), "\n"))
	return err
}

// show prints the step.
func (s *session) show(w io.Writer) error {
	style, step := ui.NewStyle(s.Out, s.Getenv), s.step()
	mark := ""
	if slices.Contains(s.progress.Done, step.ID) {
		mark = " " + style.Good(s.say.Sprintf("(done)"))
	}
	fmt.Fprintf(w, "%s%s\n\n", style.Bold(fmt.Sprintf("%d/%d  %s", s.at+1, len(s.lesson.Steps), step.Title)), mark)
	return s.print(w, step.Body)
}

// hint prints the next hint of the step.
func (s *session) hint(w io.Writer) error {
	blocks, ok := s.progress.Hint(s.step())
	if ok {
		return s.print(w, blocks)
	}
	text := s.say.Sprintf("There is no other hint.")
	if len(s.step().Solution) > 0 {
		text = s.say.Sprintf("There is no other hint. solve does the step for you.")
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// stepReport says how a step stands.
type stepReport struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Done  bool   `json:"done"`
	// Missing is what is not as it should be; MissingBefore what was not before
	// the step was solved.
	Missing       string `json:"missing,omitempty"`
	MissingBefore string `json:"missingBefore,omitempty"`
}

// lessonReport is what came of checking or solving steps.
type lessonReport struct {
	Lesson string       `json:"lesson"`
	Title  string       `json:"title"`
	Steps  []stepReport `json:"steps"`
}

// one checks or solves the step, and reports it.
func (s *session) one(ctx context.Context, solve bool, format ui.Format) error {
	report, err := s.attempt(ctx, solve, s.Err)
	if err != nil {
		return err
	}
	return s.report(format, report)
}

// solveAll solves and checks every step, up to the first that cannot be.
func (s *session) solveAll(ctx context.Context, format ui.Format) error {
	var reports []stepReport
	for s.at = range s.lesson.Steps {
		report, err := s.attempt(ctx, true, s.Err)
		if err != nil {
			return err
		}
		if reports = append(reports, report); !report.Done {
			break
		}
	}
	return s.report(format, reports...)
}

func (s *session) report(format ui.Format, steps ...stepReport) error {
	report := lessonReport{Lesson: s.name, Title: s.lesson.Title, Steps: steps}
	err := ui.Write(s.Out, format, report, func(w io.Writer) error {
		style := ui.NewStyle(s.Out, s.Getenv)
		for _, step := range steps {
			s.writeStanding(w, style, step)
		}
		return nil
	})
	if err == nil && slices.ContainsFunc(steps, func(r stepReport) bool { return !r.Done }) {
		return errFailed
	}
	return err
}

func (s *session) writeStanding(w io.Writer, style ui.Style, r stepReport) {
	if r.Done {
		fmt.Fprintf(w, "%s  %s\n", style.Good(s.say.Sprintf("done")), r.Title)
		return
	}
	fmt.Fprintf(w, "%s  %s\n", style.Bad(s.say.Sprintf("not yet")), r.Title)
	for _, line := range ui.Wrap(r.Missing, s.columns()-4) {
		fmt.Fprintln(w, "    "+line)
	}
}

// attempt checks the step, solving it first where that is asked for and it has
// a solution, and records that it is done. What the solution prints goes to w.
func (s *session) attempt(ctx context.Context, solve bool, w io.Writer) (stepReport, error) {
	step, asked := s.step(), lessonLab{s.app}
	report := stepReport{ID: step.ID, Title: step.Title}
	solve = solve && len(step.Solution) > 0
	var err error
	if solve {
		if report.MissingBefore, err = step.Missing(ctx, asked, s.say); err != nil {
			return report, err
		}
		for _, c := range step.Solution {
			fmt.Fprintf(w, "$ %s\n", c)
			s.call(ctx, c, s.say.Language(), w, w)
		}
	}
	if report.Missing, err = step.Missing(ctx, asked, s.say); err != nil {
		return report, err
	}
	if report.Done = report.Missing == ""; report.Done {
		s.progress.Finish(step.ID, solve)
	}
	return report, s.save()
}

// lessonLab is the lab of a lesson, asked by labctl's own commands.
type lessonLab struct{ *app }

// Stage is [lesson.Lab]'s.
func (l lessonLab) Stage(ctx context.Context) (string, error) {
	current, err := l.current(ctx, silent())
	if err != nil {
		return "", err
	}
	saved, err := current.Store.Load(current.Name)
	return saved.Stage, err
}

// Run is [lesson.Lab]'s. Checks read English, whatever the student's language is.
func (l lessonLab) Run(ctx context.Context, c lesson.Command) (string, int) {
	var printed shared
	code := l.call(ctx, c, lang.English, &printed, &printed)
	return printed.String(), code
}

// ReadFile is [lesson.Lab]'s.
func (lessonLab) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// call runs another labctl command in this process, about the same lab. It has
// no standard input: what asks for a terminal gets none.
func (a *app) call(ctx context.Context, c lesson.Command, language string, out, err io.Writer) int {
	args := []string{"--data-dir", a.dataDir, "--run-dir", a.runDir, "--lang", language}
	if a.lab != "" {
		args = append(args, "--lab", a.lab)
	}
	if a.provider != "" {
		args = append(args, "--provider", a.provider)
	}
	p := a.Program
	p.In, p.Out, p.Err = strings.NewReader(""), out, err
	return Run(ctx, p, append(args, c.Args...))
}

// shared is a buffer that both streams of a command are written to.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// isInterrupted says whether work ended because the student asked for it.
func isInterrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled)
}
