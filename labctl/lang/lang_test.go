package lang

import (
	"strings"
	"testing"
)

func TestPrinter(t *testing.T) {
	turned := Printer{translate: func(english string) (string, bool) {
		return "%[2]s<-%[1]s", english == "%s->%s"
	}}
	for _, c := range []struct {
		printer      Printer
		format, want string
	}{
		{Printer{}, "%s->%s", "a->b"},
		{turned, "%s->%s", "b<-a"},
		{turned, "%s to %s", "a to b"},
	} {
		if got := c.printer.Sprintf(c.format, "a", "b"); got != c.want {
			t.Errorf("Sprintf(%q) = %q, want %q", c.format, got, c.want)
		}
	}
	if got := (Printer{}).Text("50% of %s"); got != "50% of %s" {
		t.Errorf("Text = %q", got)
	}
}

// TestNumbers: ports and MTUs are no amounts, and are not grouped.
func TestNumbers(t *testing.T) {
	p, err := For("ko")
	if err != nil {
		t.Fatal(err)
	}
	p.translate = func(string) (string, bool) { return "포트 %d", true }
	if got := p.Sprintf("port %d", 65000); got != "포트 65000" {
		t.Errorf("Sprintf = %q", got)
	}
}

func TestFor(t *testing.T) {
	for name, want := range map[string]string{"en": "en", "ko": "ko", "ko-KR": "ko", "ko_KR": "ko", "en-GB": "en", "KO": "ko"} {
		p, err := For(name)
		if err != nil || p.Language() != want {
			t.Errorf("For(%q) = %s, %v, want %s", name, p.Language(), err, want)
		}
	}
	for _, name := range []string{"", "de", "korean", "한국어", "C"} {
		if p, err := For(name); err == nil || !strings.Contains(err.Error(), "en, ko") {
			t.Errorf("For(%q) = %s, %v", name, p.Language(), err)
		}
	}
}

func TestFromLocale(t *testing.T) {
	for _, c := range []struct{ all, messages, lang, want string }{
		{"", "", "", "en"},
		{"", "", "ko_KR.UTF-8", "ko"},
		{"", "ko_KR.utf8", "en_US.UTF-8", "ko"},
		{"C", "ko_KR.UTF-8", "ko_KR.UTF-8", "en"},
		{"POSIX", "", "ko_KR", "en"},
		{"", "", "C.UTF-8", "en"},
		{"", "", "de_DE@euro", "en"},
		{"", "", "ko", "ko"},
		{"", "", "../../etc", "en"},
	} {
		env := map[string]string{"LC_ALL": c.all, "LC_MESSAGES": c.messages, "LANG": c.lang}
		p, err := FromLocale(func(name string) string { return env[name] })
		if err != nil || p.Language() != c.want {
			t.Errorf("%+v: %s, %v", c, p.Language(), err)
		}
	}
}
