package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/native-routing/labctl/labctl/lesson"
	"github.com/native-routing/labctl/labctl/ui"
)

// walk leads a student through the lesson, from where it was left. It ends with
// the lesson, with quit, with the end of the input, or with Ctrl-C.
func (s *session) walk(ctx context.Context) error {
	say, style := s.say.Sprintf, ui.NewStyle(s.Out, s.Getenv)
	fmt.Fprintf(s.Out, "%s\n\n", style.Bold(s.lesson.Title))
	if s.progress.Step == "" {
		if err := s.print(s.Out, s.lesson.Intro); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(s.Out, say("You go on at step %d; %d of %d are done.", s.at+1, s.progress.Count(s.lesson), len(s.lesson.Steps)))
	}
	fmt.Fprintf(s.Out, "\n%s\n", say("Enter checks a step and goes on; help lists what else can be typed here. Leave with quit, and come back at any time."))
	lines := typed(ctx, s.In)
	for shown := -1; ; {
		if shown != s.at {
			fmt.Fprintln(s.Out)
			if err := s.show(s.Out); err != nil {
				return err
			}
			shown = s.at
		}
		if err := s.save(); err != nil {
			return err
		}
		fmt.Fprintf(s.Out, "\n%s ", style.Dim(say("[%d/%d] Enter, hint, solve, help >", s.at+1, len(s.lesson.Steps))))
		select {
		case <-ctx.Done():
			return s.leave()
		case line, more := <-lines:
			if !more {
				return s.leave()
			}
			on, err := s.take(ctx, strings.TrimSpace(line))
			switch {
			case isInterrupted(ctx, err):
				return s.leave()
			case err != nil || !on:
				return err
			}
		}
	}
}

// typed reads lines until the input or ctx ends.
func typed(ctx context.Context, in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// leave says how to come back.
func (s *session) leave() error {
	_, err := fmt.Fprintf(s.Out, "\n%s\n", s.say.Sprintf("Left at step %d. labctl lesson %s goes on there.", s.at+1, s.name))
	return err
}

// take does what a student typed; false where the walk is over.
func (s *session) take(ctx context.Context, line string) (bool, error) {
	switch line {
	case "", "check":
		return s.advance(ctx, false)
	case "solve":
		if len(s.step().Solution) == 0 {
			fmt.Fprintln(s.Out, s.say.Sprintf("There is nothing to solve here: it is enough to look."))
			return true, nil
		}
		return s.advance(ctx, true)
	case "hint":
		return true, s.hint(s.Out)
	case "run":
		for _, c := range s.step().Commands {
			s.try(ctx, c)
		}
		return true, nil
	case "skip":
		return s.next()
	case "back":
		s.at = max(0, s.at-1)
		return true, nil
	case "again":
		return true, s.show(s.Out)
	case "quit", "exit":
		return false, s.leave()
	case "help", "?":
		s.help()
		return true, nil
	}
	if !strings.HasPrefix(line, lesson.Program+" ") {
		fmt.Fprintln(s.Out, s.say.Sprintf("%q is none of the words here (help lists them), and no command that begins with labctl.", line))
		return true, nil
	}
	c, err := lesson.ParseCommand(line)
	if err != nil {
		fmt.Fprintln(s.Out, s.say.Sprintf("Not run: %v. In another terminal your shell runs everything.", err))
		return true, nil
	}
	s.try(ctx, c)
	return true, nil
}

// try runs a command before the student's eyes.
func (s *session) try(ctx context.Context, c lesson.Command) {
	fmt.Fprintln(s.Out, ui.NewStyle(s.Out, s.Getenv).Bold("$ "+c.String()))
	s.call(ctx, c, s.say.Language(), s.Out, s.Err)
}

// advance checks the step, solved before where solve says so, and goes to the
// next one where it is done.
func (s *session) advance(ctx context.Context, solve bool) (bool, error) {
	report, err := s.attempt(ctx, solve, s.Out)
	if isInterrupted(ctx, err) {
		return true, err
	}
	if err != nil { // such as a lab that is not up: the student can mend that and stay
		fmt.Fprintln(s.Out, err)
		return true, nil
	}
	if len(s.step().Checks) > 0 || !report.Done {
		s.writeStanding(s.Out, ui.NewStyle(s.Out, s.Getenv), report)
	}
	if !report.Done {
		return true, nil
	}
	return s.next()
}

// next goes to the next step; false where that was the last one.
func (s *session) next() (bool, error) {
	if s.at+1 < len(s.lesson.Steps) {
		s.at++
		return true, nil
	}
	_, err := fmt.Fprintf(s.Out, "\n%s\n", s.say.Sprintf("That was the last step: %d of %d are done.", s.progress.Count(s.lesson), len(s.lesson.Steps)))
	return false, err
}

func (s *session) help() {
	say := s.say.Sprintf
	grid := ui.NewGrid()
	grid.Indent = "  "
	for _, line := range [][2]string{
		{"Enter, check", say("check the step, and go on where it is done")},
		{"run", say("run the commands that the step shows")},
		{"labctl …", say("run this command")},
		{"hint", say("the next hint")},
		{"solve", say("let labctl do the step, and show how")},
		{"skip, back", say("to the next step without checking, to the one before")},
		{"again", say("show the step again")},
		{"quit", say("leave; labctl lesson %s goes on here", s.name)},
	} {
		grid.Row(line[0], line[1])
	}
	_ = grid.Write(s.Out) // a terminal that is gone ends the walk at its next line
}
