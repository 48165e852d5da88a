package strictyaml

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	entries, err := Parse([]byte("# c\na: 1\nb: [x, 'y']\n\"c\": |\n  text\n  more\nd: {e: {f: [[1]]}}\n"))
	if err != nil || len(entries) != 4 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for i, want := range []string{"1", "a list", `the text "text\nmore\n"`, "a mapping"} {
		if got := Describe(entries[i].Value); got != want {
			t.Errorf("entry %d is %s, want %s", i, got, want)
		}
	}
	for _, text := range []string{"", "\n", "# nothing\n", "---\n"} {
		if entries, err := Parse([]byte(text)); err != nil || len(entries) != 0 {
			t.Errorf("%q: %d entries, %v", text, len(entries), err)
		}
	}
}

// laughs is a billion laughs: each line has nine times the line before it.
func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 lol\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 8), i-1)
	}
	return b.String()
}

func attacks() map[string]string {
	indented := func() string {
		var b strings.Builder
		for i := 0; b.Len() < MaxBytes-500; i++ {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}
	const most = MaxBytes
	return map[string]string{
		"a: 1\n" + laughs():                        "line 2: an anchor (&) is not read here",
		"a: *b\n":                                  "line 1: an alias (*) is not read here",
		"a: &a [*a]\n":                             "line 1: an anchor (&) is not read here",
		"a: 1\n<<: {b: 1}\n":                       "line 2: a merge key (<<) is not read here",
		"a: !!binary aGk=\n":                       "line 1: a tag (!) is not read here",
		"a: 1\nb: 2\na: 3\n":                       "line 3: malformed YAML: mapping key \"a\" already defined at [1:1]",
		"a: 1\n---\nb: 1\n":                        "line 3: a second document; expected one",
		"- a\n":                                    "line 1: expected settings (key: value), got a list",
		"just words\n":                             `line 1: expected settings (key: value), got the text "just words"`,
		"a: [b\n":                                  "line 1: malformed YAML: sequence end token ']' not found",
		"a:\n" + strings.Repeat("[", most-10):      "line 2: lists and mappings are nested deeper than 16",
		"a: " + strings.Repeat("{a: ", most/5):     "line 1: lists and mappings are nested deeper than 16",
		"a:\n  " + strings.Repeat("- ", most/3):    "line 2: lists and mappings are nested deeper than 16",
		"a:\n  " + strings.Repeat("? ", most/3):    "line 2: lists and mappings are nested deeper than 16",
		"a: " + strings.Repeat("&a ", most/4):      "line 1: an anchor (&) is not read here",
		"a: " + strings.Repeat("!!str ", most/7):   "line 1: a tag (!) is not read here",
		"a: " + strings.Repeat("x", most):          "the file has more than 65536 bytes",
		strings.Repeat("a: 1\n", most/5):           "line 2: malformed YAML: mapping key \"a\" already defined at [1:1]",
		"a: \"" + strings.Repeat("\\\"", most/3):   "line 1: malformed YAML: could not find end character of double-quoted text",
		"a: " + strings.Repeat("a: ", most/4):      "line 1: malformed YAML: mapping value is not allowed in this context",
		"a: '" + strings.Repeat("x", most-5) + "'": "",
		indented():                                 "",
		strings.Repeat("---\n", most/4):            "",
		"a: |\n" + strings.Repeat(" x\n", most/4):  "",
	}
}

func TestAttacks(t *testing.T) {
	for text, want := range attacks() {
		_, err := Parse([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%.60q (%d bytes): %v\nwant %s", text, len(text), err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for text := range attacks() {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte("a: 1\nb: [x, {y: z}]\n? c\n: |\n  d\n"))
	f.Add([]byte("%YAML 1.2\n---\na: \"\\x\"\n...\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := Parse(text)
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		for _, entry := range entries {
			if entry.Key.GetToken() == nil {
				t.Fatal("an entry without a key")
			}
			Describe(entry.Value)
		}
	})
}
