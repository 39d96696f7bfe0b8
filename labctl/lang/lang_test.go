package lang

import "testing"

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
}
