package strictyaml

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
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

func TestUnmarshal(t *testing.T) {
	type inner struct {
		Wait *time.Duration `yaml:"wait"`
	}
	type settings struct {
		Name  string  `yaml:"name"`
		Count int     `yaml:"count"`
		Seed  uint64  `yaml:"seed"`
		Share float64 `yaml:"share"`
		On    bool    `yaml:"on"`
		List  []int   `yaml:"list"`
		Inner inner   `yaml:"inner"`
	}
	got := settings{Count: 3}
	if err := Unmarshal("x.yaml", []byte("\uFEFFname: a\r\ninner: {wait: 2m}\r\n"), &got); err != nil || got.Name != "a" || got.Count != 3 || *got.Inner.Wait != 2*time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "# name: b\n", "\uFEFF"} {
		if err := Unmarshal("x.yaml", []byte(text), &got); err != nil || got.Name != "a" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"name: a\ncuont: 1\n":      `x.yaml:2: unknown field "cuont"`,
		"name: a\nname: b\n":       `x.yaml:2: malformed YAML: mapping key "name" already defined at [1:1]`,
		"inner:\n  wait: 5\n":      `x.yaml:2: expected a time with its unit, such as 5m or 30s, got "5"`,
		"name: a\ncount: many\n":   `x.yaml:2: expected a whole number, got "many"`,
		"seed: -1\n":               `x.yaml:1: expected a whole number from 0, got "-1"`,
		"share: much\n":            `x.yaml:1: expected a number, got "much"`,
		"on: perhaps\n":            `x.yaml:1: expected true or false, got "perhaps"`,
		"list: {a: 1}\n":           "x.yaml:1: mapping was used where sequence is expected",
		"inner: words\n":           "x.yaml:1: string was used where mapping is expected",
		"name: a\ncount:\n\t- b\n": "x.yaml:3: malformed YAML",
		"a: &a [x]\n":              "x.yaml:1: an anchor",
	} {
		if err := Unmarshal("x.yaml", []byte(text), &settings{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
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
