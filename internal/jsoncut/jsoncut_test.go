package jsoncut

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// cut lists the records and errors of a text.
func cut(c *Cutter) (list []string) {
	for {
		rec, err := c.Next()
		var bad *Error
		switch {
		case err == io.EOF:
			return list
		case errors.As(err, &bad):
			list = append(list, "bad "+err.Error())
		case err != nil:
			return append(list, err.Error())
		default:
			list = append(list, fmt.Sprintf("%s %s%s", rec.Place, rec.Key, rec.JSON))
		}
	}
}

func TestCutter(t *testing.T) {
	under, keyed := Shape{Under: "data"}, Shape{Keyed: true}
	for name, c := range map[string]struct {
		text  string
		shape Shape
		want  string
	}{
		"lines":         {"{\"a\": 1}\r\n\n {}", Shape{}, `f:1 {"a": 1}|f:3 {}`},
		"array":         {"[{\"a\": \"]\\\"\"},\n[1, [2]] , 3]", Shape{}, `f:1 (element 0) {"a": "]\""}|f:2 (element 1) [1, [2]]|f:2 (element 2) 3`},
		"under":         {`{"n": {"data": 1}, "data": [1, 2], "m": "]"}`, under, "f:1 (element 0) 1|f:1 (element 1) 2"},
		"keyed":         {"{\"x\": {}, \"y\":\n[]}", keyed, "f:1 (element 0) x{}|f:2 (element 1) y[]"},
		"bad text":      {"{\"a\": \"\xff\"}\n{}", Shape{}, "bad f:1: invalid UTF-8 at byte 7 of the row|f:2 {}"},
		"no JSON":       {"\nhello", Shape{}, "f:2: expected JSON, which begins with [ or {, got 'h'; CSV and TSV are told by the end of the name"},
		"cut in record": {`[{"a`, Shape{}, "f:1: the file ends inside element 0: it is cut off"},
		"empty":         {" \n", Shape{}, ""},
	} {
		if got := strings.Join(cut(New("f", bufio.NewReader(strings.NewReader(c.text)), c.shape)), "|"); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
	}
	want := "f:2 hello|f:3 {}"
	if got := strings.Join(cut(NewLoose("f", bufio.NewReader(strings.NewReader("\nhello\n{}")))), "|"); got != want {
		t.Errorf("loose: %s\nwant %s", got, want)
	}
}

// endless is a reader of one byte, again and again.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// TestLong reads records that are longer than any may be: the record after them counts, and no more than the limit is kept.
func TestLong(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 200 MB")
	}
	long := func() io.Reader { return io.LimitReader(endless('x'), MaxRecord) }
	for name, c := range map[string]struct{ begin, end, want string }{
		"line":    {`{"a": "`, "\"}\n{}", "bad f:1: the row has more than 67108864 bytes|f:2 {}"},
		"element": {`["`, `", {}]`, "bad f:1 (element 0): the row has more than 67108864 bytes|f:1 (element 1) {}"},
	} {
		r := bufio.NewReader(io.MultiReader(strings.NewReader(c.begin), long(), strings.NewReader(c.end)))
		k := New("f", r, Shape{})
		if got := strings.Join(cut(k), "|"); got != c.want {
			t.Errorf("%s: %s\nwant %s", name, got, c.want)
		}
		if n := cap(k.buf); n > 2*MaxRecord {
			t.Errorf("%s: %d bytes are kept", name, n)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "{}": "", "\uFEFF[": "",
		"\x1F\x8B...":                "the file is compressed with gzip; unpack it first",
		"\xFF\xFE{\x00":              "the file is UTF-16; it must be UTF-8",
		"{\x00}\x00":                 "the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8",
		"version https://git-lfs...": "this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
	} {
		r := bufio.NewReader(strings.NewReader(text))
		err := Text(r)
		if want == "" {
			rest, _ := io.ReadAll(r)
			if err != nil || string(rest) != strings.TrimPrefix(text, "\uFEFF") {
				t.Errorf("%q: %v, left %q", text, err, rest)
			}
		} else if err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzCutter(f *testing.F) {
	for _, text := range []string{"{}\n{}", `[{"a": "]"}, 1]`, `{"data": [1]}`, `{"a": {}}`, "[", `{"a`, "\xff", "[1 2]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, shape := range []Shape{{}, {Under: "data"}, {Keyed: true}} {
			c := New("f", bufio.NewReader(strings.NewReader(text)), shape)
			last := 0
			for n := 0; ; n++ {
				rec, err := c.Next()
				var bad *Error
				if err != nil && !errors.As(err, &bad) {
					break // the end, or the file's error
				}
				if n > len(text) {
					t.Fatalf("%d records of %d bytes", n, len(text))
				}
				if err != nil {
					rec.Place = bad.Place
				}
				if rec.Line < last || rec.Line > 1+strings.Count(text, "\n") || !strings.Contains(text, string(rec.JSON)) {
					t.Fatalf("%v after line %d: %q", rec.Place, last, rec.JSON)
				}
				last = rec.Line
			}
			if _, err := c.Next(); err != io.EOF {
				t.Fatalf("after the end: %v", err)
			}
		}
	})
}
