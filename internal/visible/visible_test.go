package visible

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	for s, want := range map[string]string{
		"plain\n\ttext é": "plain\n\ttext é", "\x1b[2J": `\x1b[2J`, "a\r\x00b": `a\x0d\x00b`, "\u202eb": `\x202eb`, "\xff": "\uFFFD",
	} {
		if got := Text(s); got != want {
			t.Errorf("Text(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 6738415616: "6,738,415,616", -999: "-999", -1000: "-1,000"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %s, want %s", n, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"plain\n", "\x1b[31m", "\u202e", "\xff\xfe", "\x00\r", "\u009b2J"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Text(s)
		if strings.ContainsFunc(got, steers) || !utf8.ValidString(got) {
			t.Errorf("Text(%q) = %q steers", s, got)
		}
	})
}
