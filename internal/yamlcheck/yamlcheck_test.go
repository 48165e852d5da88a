package yamlcheck

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/biolora/biolora/internal/hostile"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a: 1\nb: [1, {c: d}]\n": "", "a: |\n  *not* an &alias\n": "", "a: '*b & c'\n": "", "# &a *a\na: 1": "", "- - - 1": "",
		strings.Repeat("[", 32) + strings.Repeat("]", 32):    "",
		strings.Repeat("- 1\n", 1000):                        "",
		"a: &x [1]\nb: [*x, *x]\n":                           "line 1: anchors and aliases are not supported (&)",
		"a: 1\nb: *x\n":                                      "line 2: anchors and aliases are not supported (*)",
		"a:\n  <<: *x\n":                                     "line 2: anchors and aliases are not supported (*)",
		"a: 1\n" + strings.Repeat("[", 33):                   "line 2: nested deeper than 32",
		strings.Repeat("{a: ", 500_000):                      "line 1: nested deeper than 32",
		strings.Repeat("- ", 500_000):                        "line 1: nested deeper than 32",
		"a:\n" + strings.Repeat("- 1\n", 10_000):             "line 10001: more than 20000 tokens",
		strings.Repeat("#\n", 300_000):                       "line 20001: more than 20000 tokens",
		"a: " + strings.Repeat("[", 20) + "\n- - - - - - - ": "",
	} {
		hostile.Bounded(t, len(text), perByte, func() {
			if err := Check([]byte(text)); (err != nil || want != "") && (err == nil || err.Error() != want) {
				t.Errorf("%.40q: got %v\nwant %s", text, err, want)
			}
		})
	}
}

// perByte is what the YAML library's tokens take.
const perByte = 1000

// What passes can be parsed.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"a: 1\nb:\n  - c\n  - {d: [e]}\n", "a: |\n  text\n", "a: &x 1\nb: *x\n", strings.Repeat("[", 40), "- - - a", "? a\n: b", "--- \"\\u00e9\"\n...\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var err error
		hostile.Bounded(t, len(text), perByte, func() { err = Check(text) })
		if err != nil {
			return
		}
		defer func() { recover() }() // the library panics on some broken texts, which its users catch
		var v any
		if yaml.Unmarshal(text, &v) == nil && len(fmt.Sprint(v)) > 100*len(text)+100 {
			t.Errorf("%q multiplies", text)
		}
	})
}
