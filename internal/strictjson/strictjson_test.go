package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/hostile"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]any{
		`null`:                         nil,
		" true\n":                      true,
		`false`:                        false,
		`0`:                            json.Number("0"),
		`-0.5e+10`:                     json.Number("-0.5e+10"),
		`12345678901234567890123`:      json.Number("12345678901234567890123"),
		`""`:                           "",
		`"a\"\\\/\b\f\n\r\tz"`:         "a\"\\/\b\f\n\r\tz",
		`"\u00e9\uD83D\ude00é😀\u0000"`: "é😀é😀\x00",
		`[]`:                           []any{},
		"[ 1 ,\t[ ] ]":                 []any{json.Number("1"), []any{}},
	} {
		got, err := Parse([]byte(text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestObjectKeepsOrder(t *testing.T) {
	o, err := ParseObject([]byte(`{"b": 1, "a": {"B": null}, "B": [], "": 2}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"b", "a", "B", ""}; !reflect.DeepEqual(o.Keys, want) {
		t.Errorf("keys %q, want %q", o.Keys, want)
	}
	if v, ok := o.Get("b"); !ok || v != json.Number("1") {
		t.Errorf("b is %v", v)
	}
	if _, ok := o.Get("c"); ok {
		t.Error("c is not there")
	}
	a, _ := o.Get("a")
	if v, ok := a.(*Object).Get("B"); !ok || v != nil {
		t.Errorf("a.B is %v, %v", v, ok)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "line 1, byte 0: want a value, but the text ends",
		"\ufeff{}":                 `line 1, byte 0: want a value, got '\ufeff'`,
		"{\n\"a\": 1,\n\"a\": 2}":  `line 3, byte 10: key "a" is there twice`,
		`{"a":1,"\u0061":2}`:       `line 1, byte 7: key "a" is there twice`,
		`{"a":1,}`:                 `line 1, byte 7: want a string, got '}'`,
		`{"a" 1}`:                  `line 1, byte 5: want ':', got '1'`,
		`{a: 1}`:                   `line 1, byte 1: want a string, got 'a'`,
		`{"a":1 "b":2}`:            `line 1, byte 7: want ',' or '}', got '"'`,
		`[1,]`:                     `line 1, byte 3: want a value, got ']'`,
		`[1`:                       `line 1, byte 2: want ',' or ']', but the text ends`,
		`[1}`:                      `line 1, byte 2: want ',' or ']', got '}'`,
		`{} {}`:                    "line 1, byte 3: there is more after the end of the value",
		`01`:                       "line 1, byte 1: there is more after the end of the value",
		`-`:                        "line 1, byte 1: want a digit, but the text ends",
		`1.`:                       "line 1, byte 2: want a digit, but the text ends",
		`1e+`:                      "line 1, byte 3: want a digit, but the text ends",
		`+1`:                       "line 1, byte 0: want a value, got '+'",
		`NaN`:                      "line 1, byte 0: want a value, got 'N'",
		`nul`:                      "line 1, byte 0: want a value, got 'n'",
		`tru`:                      "line 1, byte 0: want a value, got 't'",
		`"abc`:                     "line 1, byte 4: the text ends inside a string",
		`"abc\`:                    "line 1, byte 5: the text ends inside a string",
		"\"a\nb\"":                 "line 1, byte 2: control character 0x0a in a string",
		`"\x41"`:                   `line 1, byte 1: unknown escape \x`,
		`"\u12"`:                   `line 1, byte 1: \u needs four hexadecimal digits`,
		`"\ud83d"`:                 "line 1, byte 1: lone surrogate",
		`"\ud83d\ud83d"`:           "line 1, byte 1: lone surrogate",
		`"\ude00"`:                 "line 1, byte 1: lone surrogate",
		"[\"\xff\"]":               "line 1, byte 2: not valid UTF-8",
		"[\x00]":                   `line 1, byte 1: want a value, got '\x00'`,
		strings.Repeat("[", 100):   "line 1, byte 64: nested deeper than 64",
		strings.Repeat(`{"":`, 99): "line 1, byte 256: nested deeper than 64",
	} {
		_, err := Parse([]byte(text))
		var e *Error
		if !errors.As(err, &e) || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestDepthLimit(t *testing.T) {
	if _, err := Parse([]byte(strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth))); err != nil {
		t.Error(err)
	}
}

func TestUint(t *testing.T) {
	for text, want := range map[string]string{
		"18446744073709551615": "",
		"18446744073709551616": "line 1, byte 0: 18446744073709551616 does not fit 64 bits",
		" -1":                  "line 1, byte 1: want a whole number from 0, got -1",
		"1.0":                  "line 1, byte 0: want a whole number from 0, got 1.0",
		`"1"`:                  `line 1, byte 0: want a number, got '"'`,
	} {
		r, err := NewReader([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := r.Uint()
		if want == "" {
			if err != nil || v != 1<<64-1 {
				t.Errorf("%s: %d, %v", text, v, err)
			}
			continue
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestReadObject(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"a": 1}`)
	if o, err := ReadObject(path, 8); err != nil || len(o.Keys) != 1 {
		t.Errorf("%v, %v", o, err)
	}
	if _, err := ReadObject(path, 7); err == nil || err.Error() != path+": 8 bytes, at most 7 are plausible" {
		t.Error(err)
	}
	write(`[1]`)
	if _, err := ReadObject(path, 8); err == nil || err.Error() != path+": want a JSON object, got an array" {
		t.Error(err)
	}
	write("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
	if _, err := ReadObject(path, 1<<20); err == nil || err.Error() != path+": this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull" {
		t.Error(err)
	}
	if _, err := ReadObject(dir, 1<<20); err == nil || err.Error() != dir+": not a regular file" {
		t.Error(err)
	}
	if _, err := ReadObject(filepath.Join(dir, "b.json"), 8); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestFormat(t *testing.T) {
	o := NewObject()
	o.Set("b", json.Number("1e-05"))
	o.Set("a", []any{true, nil, "<é\n", []any{}, NewObject()})
	o.Set("b", json.Number("2.0"))
	want := `{
  "b": 2.0,
  "a": [
    true,
    null,
    "<é\n",
    [],
    {}
  ]
}
`
	if got := string(Format(o)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// What we accept, encoding/json accepts with the same value; what it refuses, we refuse.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,{"b":null}],"c":"\u00e9\n","d":true}`, `{"a":1,"a":2}`, `"\ud83d\ude00"`, "\xff", `[`, `-0`, " {} "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		var err error
		hostile.Bounded(t, len(data), perByte, func() { v, err = Parse(data) })
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset > len(data) || e.Line < 1 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		if !utf8.Valid(data) || !json.Valid(data) {
			t.Fatalf("%q is not JSON", data)
		}
		again, err := Parse(Format(v))
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%q became %q", data, Format(v))
		}
		d := json.NewDecoder(strings.NewReader(string(data)))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		if got := plain(v); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v, want %v", data, got, want)
		}
		r, err := NewReader(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Skip(), r.End()); err != nil {
			t.Fatalf("Skip: %v", err)
		}
	})
}

// plain turns objects into maps.
func plain(v any) any {
	switch v := v.(type) {
	case *Object:
		m := map[string]any{}
		for _, k := range v.Keys {
			e, _ := v.Get(k)
			m[k] = plain(e)
		}
		return m
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	}
	return v
}

// perByte is how much memory a byte of a text can take, as the package promises.
const perByte = 120

// What is read takes memory by its length, and there is an end to it.
func TestBounds(t *testing.T) {
	const n = 50_000
	var keys strings.Builder
	for i := range MaxKeys + 1 {
		fmt.Fprintf(&keys, `,"%x":0`, i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"numbers":        {"[0" + strings.Repeat(",0", n) + "]", ""},
		"empty strings":  {`[""` + strings.Repeat(`,""`, n) + "]", ""},
		"empty arrays":   {"[[]" + strings.Repeat(",[]", n) + "]", ""},
		"empty objects":  {"[{}" + strings.Repeat(",{}", n) + "]", ""},
		"small objects":  {`[{"":0}` + strings.Repeat(`,{"":0}`, n) + "]", ""},
		"escapes":        {`"` + strings.Repeat(`\u0041`, n) + `"`, ""},
		"many values":    {"[0" + strings.Repeat(",0", MaxValues) + "]", "line 1, byte 2097151: a text of more than 1048576 values"},
		"a long number":  {"-" + strings.Repeat("9", n) + "x", "line 1, byte 50001: there is more after the end of the value"},
		"a long key":     {`{"` + strings.Repeat("k", n) + `":0,"` + strings.Repeat("k", n) + `":0}`, `line 1, byte 50006: key "` + strings.Repeat("k", 80) + `..." is there twice`},
		"nested objects": {strings.Repeat(`{"":`, n), "line 1, byte 256: nested deeper than 64"},
	} {
		t.Run(name, func(t *testing.T) {
			hostile.Bounded(t, len(c.text), perByte, func() {
				if _, err := Parse([]byte(c.text)); (err != nil || c.want != "") && (err == nil || err.Error() != c.want) {
					t.Errorf("got  %.300v\nwant %s", err, c.want)
				}
			})
		})
	}
	r, err := NewReader([]byte("{" + keys.String()[1:] + "}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Skip(); err == nil || err.Error() != "line 1, byte 10415857: an object of more than 1048576 keys" {
		t.Errorf("skipping: %v", err)
	}
	if got := Kind(json.Number(strings.Repeat("1", n))); got != "the number "+strings.Repeat("1", 80)+"..." {
		t.Errorf("a long number is %.300s", got)
	}
}
