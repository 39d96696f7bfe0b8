package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/labctl/ui"
	"github.com/native-routing/labctl/topologies"
)

// lessonFlags are the flags of labctl lesson.
type lessonFlags struct {
	step                                              string
	check, hint, solve, solveAll, validate, startOver bool
}

func newLesson(a *app) *cobra.Command {
	var flags lessonFlags
	output := ui.NewFormat()
	cmd := &cobra.Command{
		Use:   "lesson [NAME|FILE]",
		Short: "Walk through a lesson: step by step, with checks, hints and solutions",
		Long: `Without a name it lists the lessons, and how far each is done.

With a name it walks through the lesson, from where it was left: it shows a step,
waits until it is done, checks it in the lab, and says what is missing. What is
typed there is one of its words (help lists them) or a command that begins with
labctl. Ctrl-C leaves; the same command goes on.

--check, --hint, --solve and --solve-all do one thing and end, for scripts: with
--step of that step, and otherwise of the one where the lesson was left.

It exits with 3 where a step is not done, and with 2 where the file is no lesson.`,
		Example: `  labctl lesson native-routing
  labctl lesson native-routing --lang ko
  labctl lesson native-routing --step 8 --check
  labctl lesson my-lesson.md --validate`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.lessons(output.Format)
			}
			return a.lesson(cmd.Context(), args[0], flags, output.Format)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return topologies.Lessons(), cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.step, "step", "", "this step, by its number or its name; alone it shows it")
	f.BoolVar(&flags.check, "check", false, "check the step and end")
	f.BoolVar(&flags.hint, "hint", false, "give the next hint and end")
	f.BoolVar(&flags.solve, "solve", false, "solve the step, check it and end")
	f.BoolVar(&flags.solveAll, "solve-all", false, "solve and check all steps, from the first")
	f.BoolVar(&flags.validate, "validate", false, "say what is wrong with the file, and touch no lab")
	f.BoolVar(&flags.startOver, "start-over", false, "forget how far it was done")
	cmd.MarkFlagsMutuallyExclusive("check", "hint", "solve", "solve-all", "validate")
	cmd.MarkFlagsMutuallyExclusive("step", "solve-all")
	cmd.MarkFlagsMutuallyExclusive("step", "validate")
	addOutput(cmd, output)
	return cmd
}

// lesson does what the flags say with one lesson.
func (a *app) lesson(ctx context.Context, name string, flags lessonFlags, format ui.Format) error {
	if flags.validate {
		return a.validateLesson(name)
	}
	l, err := readLesson(name, a.say.Language())
	if err != nil {
		return err
	}
	s := &session{app: a, name: name, lesson: l, record: a.progressFile(name, l)}
	if flags.startOver {
		if err := os.Remove(s.record); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget how far the lesson is: %w", err)
		}
	}
	if s.progress, err = lesson.LoadProgress(s.record); err != nil {
		return err
	}
	s.at = s.progress.At(l)
	if flags.step != "" {
		at, ok := l.Find(flags.step)
		if !ok {
			return usageError{fmt.Errorf("--step %s: the lesson has steps 1 to %d: %s", flags.step, len(l.Steps), strings.Join(stepNames(l), ", "))}
		}
		s.at = at
	}
	switch {
	case flags.solveAll:
		return s.solveAll(ctx, format)
	case flags.check, flags.solve:
		return s.one(ctx, flags.solve, format)
	case flags.hint:
		return cmp.Or(s.hint(a.Out), s.save())
	case flags.step != "":
		return s.show(a.Out)
	}
	return s.walk(ctx)
}

func stepNames(l *lesson.Lesson) []string {
	names := make([]string, len(l.Steps))
	for i, s := range l.Steps {
		names[i] = s.ID
	}
	return names
}

// lessonInfo is a line of the list of lessons.
type lessonInfo struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Topology string `json:"topology"`
	Steps    int    `json:"steps"`
	Done     int    `json:"done"`
	// At is the step where it was left; empty where it was not begun.
	At string `json:"at,omitempty"`
}

// lessons lists the shipped lessons, and how far each is done.
func (a *app) lessons(format ui.Format) error {
	list := []lessonInfo{}
	for _, name := range topologies.Lessons() {
		l, err := readLesson(name, a.say.Language())
		if err != nil {
			return err
		}
		p, err := lesson.LoadProgress(a.progressFile(name, l))
		if err != nil {
			return err
		}
		list = append(list, lessonInfo{Name: name, Title: l.Title, Topology: l.Topology, Steps: len(l.Steps), Done: p.Count(l), At: p.Step})
	}
	return ui.Write(a.Out, format, list, func(w io.Writer) error {
		grid := ui.NewGrid("LESSON", "LAB", "STEPS", "DONE", "AT", "TITLE")
		for _, l := range list {
			grid.Row(l.Name, l.Topology, strconv.Itoa(l.Steps), strconv.Itoa(l.Done), cmp.Or(l.At, "-"), l.Title)
		}
		return grid.Write(w)
	})
}

// progressFile is the record of a lesson on a lab. It is the student's, and not
// the lab's: it stays when the lab goes down.
func (a *app) progressFile(name string, l *lesson.Lesson) string {
	lessonName := strings.TrimSuffix(filepath.Base(name), ".md")
	return filepath.Join(a.dataDir, ".lessons", cmp.Or(a.lab, l.Topology)+"."+lessonName+".json")
}

// readLesson reads a lesson in a language where it was translated: a shipped one
// by its name, or a file.
func readLesson(name, language string) (*lesson.Lesson, error) {
	file, text, err := lessonText(name, language)
	if err != nil {
		return nil, err
	}
	return lesson.Parse(file, text)
}

func lessonText(name, language string) (file string, text []byte, err error) {
	if slices.Contains(topologies.Lessons(), name) {
		return topologies.Lesson(name, language)
	}
	file = name
	if stem, ok := strings.CutSuffix(name, ".md"); ok {
		if translated := stem + "." + language + ".md"; isFile(translated) {
			file = translated
		}
	}
	if !isFile(file) {
		return "", nil, usageError{fmt.Errorf("lesson %s: there is no such file (a file, or one of %s)", name, strings.Join(topologies.Lessons(), ", "))}
	}
	text, err = os.ReadFile(file)
	return file, text, err
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// validateLesson reads a lesson in all languages, and compares them.
func (a *app) validateLesson(name string) error {
	original, err := readLesson(name, lang.English)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Out, a.say.Sprintf("%s is a lesson of %d steps, in %s.", name, len(original.Steps), original.Language))
	for _, language := range lang.Names() {
		file, text, err := lessonText(name, language)
		if err != nil {
			return err
		}
		translated, err := lesson.Parse(file, text)
		if err != nil {
			return err
		}
		if translated.Language == original.Language {
			continue
		}
		if translated.Skeleton() != original.Skeleton() {
			return usageError{fmt.Errorf("%s has other steps, commands, checks, hints or solutions than %s: only the texts differ between languages", file, name)}
		}
		fmt.Fprintln(a.Out, a.say.Sprintf("%s says the same in %s.", file, translated.Language))
	}
	return nil
}
