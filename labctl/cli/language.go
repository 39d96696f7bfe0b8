package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/native-routing/labctl/labctl/lang"
)

// languageFlag is --lang: it chooses the printer that all commands speak with.
type languageFlag struct{ say *lang.Printer }

func (f languageFlag) String() string {
	if f.say == nil {
		return ""
	}
	return f.say.Language()
}

func (f languageFlag) Set(name string) (err error) {
	*f.say, err = lang.For(name)
	return err
}

func (languageFlag) Type() string { return "language" }

// addLanguage lets the locale choose the student's language, and --lang before it.
func (a *app) addLanguage(root *cobra.Command) {
	if say, err := lang.FromLocale(a.Getenv); err == nil {
		a.say = say
	}
	root.PersistentFlags().Var(languageFlag{&a.say}, "lang", "speak this language to students: "+strings.Join(lang.Names(), ", ")+" (otherwise the locale's)")
	root.PersistentFlags().Lookup("lang").DefValue = ""                                                                   // it depends on who asks
	_ = root.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(lang.Names(), cobra.ShellCompDirectiveNoFileComp)) // it fails only for a flag that is not there
}
