package instruct

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/jsoncut"
)

func read(t *testing.T, text string, opts ...Option) (*Dataset, error) {
	t.Helper()
	// One byte at a time: nothing may depend on how the file comes in.
	d, err := Read("f", iotest.OneByteReader(strings.NewReader(text)), Alpaca, opts...)
	e, err2 := Read("f", strings.NewReader(text), Alpaca, opts...)
	if diff := cmp.Diff(d, e, cmp.AllowUnexported(Dataset{}, Row{}), cmpopts.EquateErrors(), cmpopts.IgnoreFields(Dataset{}, "badRows")); diff != "" || fmt.Sprint(err) != fmt.Sprint(err2) {
		t.Fatalf("in one go and byte by byte differ: %v, %v\n%s", err, err2, diff)
	}
	return d, err
}

func TestForms(t *testing.T) {
	a := Row{Kind: Instruction, Instruction: "i", Input: "x", Output: "o"}
	b := Row{Kind: Prompt, Prompt: "p", Completion: "c"}
	c := Row{Kind: Tokens, InputIDs: []int32{1, 5, 2}, Labels: []int32{-100, 5, 2}}
	const ja, jb, jc = `{"instruction":"i","input":"x","output":"o","index":7}`, `{"prompt":"p","completion":"c"}`,
		`{"input_ids":[1, 5,2],"labels":[-100,5,2],"attention_mask":[1,1,1]}`
	for name, text := range map[string]string{
		"lines":                  ja + "\n" + jb + "\n" + jc + "\n",
		"lines without the last": ja + "\n" + jb + "\n" + jc,
		"lines, CRLF, blank":     "\r\n" + ja + "\r\n\r\n \t\r\n" + jb + "\r\n" + jc + "\r\n\r\n",
		"lines, BOM":             "\uFEFF" + ja + "\n" + jb + "\n" + jc,
		"array":                  "[" + ja + "," + jb + "," + jc + "]",
		"array, BOM, spread out": "\uFEFF \n[\r\n" + strings.ReplaceAll(ja, ",", ",\n") + "\n,\n\t" + jb + " , " + jc + "\n]\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			d, err := read(t, text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Row{a, b, c}, d.rows, cmpopts.IgnoreUnexported(Row{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOptionalInput(t *testing.T) {
	d, err := read(t, `[{"instruction":"i","output":"o"},{"instruction":"i","input":null,"output":"o"},{"instruction":"i","input":"","output":"o"}]`)
	if err != nil {
		t.Fatal(err)
	}
	for i := range d.Len() {
		if in := d.Row(i).Input; in != "" {
			t.Errorf("row %d: input %q", i, in)
		}
	}
}

func TestText(t *testing.T) {
	d, err := read(t, `{"instruction":"a\n\"\u00e9\ud83d\ude00\ufffd\uFFFD�","output":"b","output":"last","x":{"y":[1,"]}"]}}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Row(0).Instruction, "a\n\"é😀\uFFFD\uFFFD\uFFFD"; got != want {
		t.Errorf("instruction %q, want %q", got, want)
	}
	if got := d.Row(0).Output; got != "last" {
		t.Errorf("output %q", got)
	}
}

// Each of these files has one thing wrong; the message must say where and what.
var badFiles = []struct{ name, text, want string }{
	{"empty", "", "f: the data set is empty"},
	{"only white space", " \n\n", "f: the data set is empty"},
	{"empty array", "[ ]", "f: the data set is empty"},
	{"only a BOM", "\uFEFF", "f: the data set is empty"},
	{"cut line", "\n{\"instruction\":\"i\",\"output\":\"o\"}\n{\"instruction\":\"i", "f:3: unexpected end of JSON input at byte 17 of the line (a row must be one JSON object on one line)"},
	{"pretty-printed object", "{\n\"instruction\": \"i\"\n}", "f:1: unexpected end of JSON input at byte 1 of the line (a row must be one JSON object on one line)\nf:2: expected a JSON object, got \"instruction\": \"i\"\nf:3: expected a JSON object, got }"},
	{"bad syntax in a line", `{"instruction":i,"output":"o"}`, "f:1: invalid character 'i' looking for beginning of value at byte 16 of the line"},
	{"two objects in a line", `{"prompt":"p","completion":"c"} {"prompt":"p"}`, "f:1: invalid character '{' after top-level value at byte 33 of the line"},
	{"line is no object", "{\"prompt\":\"p\",\"completion\":\"c\"}\n\"text\"", `f:2: expected a JSON object, got "text"`},
	{"plain text", "instruction,input,output", "f:1: expected a JSON object, got instruction,input,output"},
	{"element is no object", "[{\"prompt\":\"p\",\"completion\":\"c\"},\n7]", "f:2 (element 1): expected a JSON object, got 7"},
	{"array of arrays", `[["a"]]`, `f:1 (element 0): expected a JSON object, got ["a"]`},
	{"bad syntax in an element", "[\n{\"prompt\":\"p\",\n\"completion\":c}]", "f:2 (element 0): invalid character 'c' looking for beginning of value in line 3"},
	{"array not closed", `[{"prompt":"p","completion":"c"},`, "f:1: the file ends inside an array, after 1 elements: it is cut off"},
	{"array not closed in an element", "[\n{\"prompt\":\"p\",\"comp", "f:2: the file ends inside element 0: it is cut off"},
	{"array not closed after an element", `[{"prompt":"p","completion":"c"}`, "f:1: the file ends inside an array, after 1 elements: it is cut off"},
	{"something after the array", "[{\"prompt\":\"p\",\"completion\":\"c\"}]\n{}", "f:2: expected the end of the file, got '{'"},
	{"no comma", `[{"prompt":"p","completion":"c"} {}]`, "f:1: expected a comma or the end of the array after element 0, got '{'"},
	{"comma first", `[,{}]`, "f:1: expected element 0 of the array, got a comma"},
	{"two commas", `[{"prompt":"p","completion":"c"},,{}]`, "f:1: expected element 1 of the array, got a comma"},
	{"comma last", `[{"prompt":"p","completion":"c"},]`, "f:1: expected an element after the comma, got the end of the array"},
	{"stray bracket", `[}]`, "f:1 (element 0): expected a JSON object, got nothing\nf:1: expected a comma or the end of the array after element 0, got '}'"},
	{"UTF-16", "\xff\xfe{\x00", "f: the file is UTF-16; it must be UTF-8"},
	{"UTF-16, no mark", "{\x00\"\x00", "f: the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8"},
	{"UTF-32", "\xff\xfe\x00\x00{\x00\x00\x00", "f: the file is UTF-32; it must be UTF-8"},
	{"Parquet", "PAR1\x15\x04", "f: the file is Parquet; export it as JSON Lines first"},
	{"Arrow", "ARROW1\x00\x00", "f: the file is Arrow; export it as JSON Lines first"},
	{"zip", "PK\x03\x04\x14", "f: the file is a zip archive (or a spreadsheet); unpack it (or export it as text) first"},
	{"zstd", "\x28\xb5\x2f\xfd\x04", "f: the file is compressed with zstd; unpack it first"},
	{"gzip", "\x1f\x8b\x08\x00", "f: the file is compressed with gzip; unpack it first"},
	{"Latin-1", "{\"instruction\":\"caf\xe9\",\"output\":\"o\"}", "f:1: invalid UTF-8 at byte 19 of the row"},
	{"half a surrogate pair", `{"instruction":"a\ud83d","output":"o"}`, `f:1: the field "instruction" has half of a surrogate pair (\ud800 to \udfff), which is no character`},
	{"no known field", `{"question":"q","answer":"a"}`, `f:1: expected the fields "instruction" and "output", "prompt" and "completion", "messages", or "input_ids" and "labels"; the row has "answer", "question"`},
	{"empty object", `{}`, `f:1: expected the fields "instruction" and "output", "prompt" and "completion", "messages", or "input_ids" and "labels"; the row has none`},
	{"no output", `{"instruction":"i"}`, `f:1: the field "output" is missing; the row has "instruction"`},
	{"empty output", `{"instruction":"i","output":" \n"}`, `f:1: the field "output" is empty`},
	{"empty instruction", `{"instruction":"","output":"o"}`, `f:1: the field "instruction" is empty`},
	{"null output", `{"instruction":"i","output":null}`, `f:1: the field "output": expected a string, got null`},
	{"wrong types", `{"instruction":["i"],"input":3,"output":"o"}`, "f:1: the field \"instruction\": expected a string, got [\"i\"]\nthe field \"input\": expected a string, got 3"},
	{"no completion", `{"prompt":"p"}`, `f:1: the field "completion" is missing; the row has "prompt"`},
	{"empty completion", `{"prompt":"p","completion":""}`, `f:1: the field "completion" is empty`},
	{"lengths differ", `{"input_ids":[1,2,3],"labels":[1,2]}`, "f:1: input_ids has 3 tokens, labels has 2; they must be aligned"},
	{"no labels", `{"input_ids":[1,2,3]}`, `f:1: the field "labels" is missing; the row has "input_ids"`},
	{"no ids", `{"input_ids":[],"labels":[]}`, "f:1: input_ids is empty"},
	{"null among the ids", `{"input_ids":[1,null],"labels":[1,2]}`, "f:1: input_ids[1]: expected an integer from 0 to 2147483647, got null"},
	{"a fraction", `{"input_ids":[1,2.5],"labels":[1,2]}`, "f:1: input_ids[1]: expected an integer from 0 to 2147483647, got 2.5"},
	{"nested ids", `{"input_ids":[[1,2]],"labels":[1,2]}`, "f:1: input_ids[0]: expected an integer from 0 to 2147483647, got [1"},
	{"ids are text", `{"input_ids":"1 2","labels":[1,2]}`, `f:1: the field "input_ids": expected an array of integers, got "1 2"`},
	{"negative id", `{"input_ids":[1,-100],"labels":[1,2]}`, "f:1: input_ids[1]: expected an integer from 0 to 2147483647, got -100"},
	{"huge id", `{"input_ids":[1,2147483648],"labels":[1,2]}`, "f:1: input_ids[1]: expected an integer from 0 to 2147483647, got 2147483648"},
	{"other negative label", `{"input_ids":[1,2],"labels":[1,-1]}`, "f:1: labels[1] is -1: a label is a token id or -100"},
	{"padded", `{"input_ids":[1,0],"labels":[1,2],"attention_mask":[1,0]}`, "f:1: attention_mask must be 2 ones: rows are given without padding"},
	{"packed", `{"input_ids":[1,0],"labels":[1,2],"position_ids":[0,0]}`, "f:1: position_ids are not supported: the positions of a row count from 0"},
}

func TestBadFiles(t *testing.T) {
	for _, c := range badFiles {
		t.Run(c.name, func(t *testing.T) {
			d, err := read(t, c.text)
			if err == nil {
				t.Fatalf("no error, %d rows", d.Len())
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllBadRowsAreReported(t *testing.T) {
	const good, bad = `{"prompt":"p","completion":"c"}`, `{"prompt":"p","completion":""}`
	_, err := read(t, strings.Repeat(good+"\n"+bad+"\n", 12))
	want := ""
	for i := range maxReported {
		want += fmt.Sprintf("f:%d: the field \"completion\" is empty\n", 2*i+2)
	}
	want += "f: 2 more bad rows (12 of 24 rows are bad)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestSkipBad(t *testing.T) {
	for name, text := range map[string]string{
		"lines": "{\"prompt\":\"p\",\"completion\":\"c\"}\n{\n{\"prompt\":\"q\"}\n\xff\n{\"prompt\":\"r\",\"completion\":\"c\"}\n",
		"array": "[{\"prompt\":\"p\",\"completion\":\"c\"},{,},{\"prompt\":\"q\"},\"\xff\",{\"prompt\":\"r\",\"completion\":\"c\"}]",
	} {
		d, err := read(t, text, SkipBad())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Len() != 2 || d.Bad() != 3 || len(d.BadRows()) != 3 || d.Row(1).Prompt != "r" {
			t.Errorf("%s: %d rows, %d bad: %v", name, d.Len(), d.Bad(), d.BadRows())
		}
	}
	_, err := read(t, `{"prompt":"q"}`, SkipBad())
	if err == nil || !strings.Contains(err.Error(), "the data set is empty: all of its 1 rows are bad, the first: f:1: ") {
		t.Errorf("nothing but bad rows: %v", err)
	}
	if _, err := read(t, `[{"prompt":"p","completion":"c"},`, SkipBad()); err == nil {
		t.Error("a file that is cut off is no bad row")
	}
}

func TestLongRow(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 130 MB")
	}
	long := func() *strings.Reader { return strings.NewReader(strings.Repeat("x", jsoncut.MaxRecord)) }
	rest := "\"}\n{\"prompt\":\"p\",\"completion\":\"c\"}"
	for name, text := range map[string]io.Reader{
		"lines": io.MultiReader(strings.NewReader(`{"prompt":"`), long(), strings.NewReader(rest)),
		"array": io.MultiReader(strings.NewReader(`[{"prompt":"`), long(), strings.NewReader(strings.Replace(rest, "\n", ",", 1)+"]")),
	} {
		d, err := Read("f", text, Alpaca, SkipBad())
		if err != nil || d.Len() != 1 || d.Bad() != 1 || !strings.Contains(d.BadRows()[0].Error(), "more than") {
			t.Errorf("%s: %v %+v", name, err, d)
		}
	}
}

func TestFields(t *testing.T) {
	f := WithFields(Fields{Instruction: "question", Input: "context", Output: "answer"})
	d, err := read(t, `{"question":"q","answer":"a","instruction":1}`+"\n"+`{"question":"q","context":"c","answer":"a"}`, f)
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Row(1); r.Instruction != "q" || r.Input != "c" || r.Output != "a" {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct{ name, text, want string }{
		{"misspelt", `{"question":"q","ctx":"c","answer":"a"}`, `f: no row has the field "context", given as the name of input`},
		{"the default name", `{"instruction":"q","output":"a"}`, `f:1: expected the fields "question" and "answer", "prompt" and "completion", "messages", or "input_ids" and "labels"; the row has "instruction", "output"`},
	} {
		if _, err := read(t, c.text, f); err == nil || err.Error() != c.want {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
	for want, f := range map[string]Fields{
		`the field "output" cannot be both instruction and output`: {Instruction: "output"},
		`the field "labels" cannot be both the labels and prompt`:  {Prompt: "labels"},
		`the field "q" cannot be both instruction and prompt`:      {Instruction: "q", Prompt: "q"},
		`the field "prompt" cannot be both prompt and completion`:  {Completion: "prompt"},
	} {
		if _, err := read(t, `{}`, WithFields(f)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// A name that is given for a field of one form may be the default name in the other.
func TestFieldsAcrossForms(t *testing.T) {
	for _, c := range []struct {
		text string
		f    Fields
		want Row
	}{
		{`{"prompt":"p","completion":"c"}`, Fields{Instruction: "prompt", Output: "completion"}, Row{Kind: Instruction, Instruction: "p", Output: "c"}},
		{`{"instruction":"p","output":"c"}`, Fields{Prompt: "instruction", Completion: "output"}, Row{Kind: Prompt, Prompt: "p", Completion: "c"}},
		{`{"instruction":"p","completion":"c"}`, Fields{Output: "completion"}, Row{Kind: Instruction, Instruction: "p", Output: "c"}},
		{`{"prompt":"p","output":"c"}`, Fields{Completion: "output"}, Row{Kind: Prompt, Prompt: "p", Completion: "c"}},
	} {
		d, err := read(t, c.text, WithFields(c.f))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(c.want, *d.Row(0), cmpopts.IgnoreUnexported(Row{})); diff != "" {
			t.Errorf("%s: %s", c.text, diff)
		}
	}
}

func TestOpenAll(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.json"), filepath.Join(dir, "two.jsonl")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(one, `[{"instruction":"i","output":"o"}]`)
	write(two, `{"prompt":"p","completion":"c"}`)
	d, err := OpenAll([]string{one, two}, Alpaca)
	if err != nil || d.Len() != 2 || d.Row(0).Place() != one+":1 (element 0)" || d.Row(1).Place() != two+":1" {
		t.Fatalf("%v, %+v", err, d)
	}
	write(two, `{"prompt":"p"}`)
	_, err = OpenAll([]string{one, two, filepath.Join(dir, "none"), dir}, Alpaca)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{two + ":1: the field", "none", dir + " is a directory"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("the missing file is not in the chain")
	}
	if _, err := OpenAll(nil, Alpaca); err == nil {
		t.Error("no file is no error")
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("disk on fire")
	for _, text := range []string{"", "{", "[", `[{"prompt":"p","completion":"c"}`, `[{"prompt":"p","completion":"c"}]`} {
		_, err := Read("f", io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), Alpaca)
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "f:") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, c := range badFiles {
		f.Add([]byte(c.text))
	}
	for _, c := range badConversations {
		f.Add([]byte(c.text))
	}
	f.Add([]byte(`[{"instruction":"i","input":"x","output":"o"},{"prompt":"p","completion":"c"}]`))
	f.Add([]byte("{\"input_ids\":[1,2],\"labels\":[-100,2]}\n"))
	f.Add([]byte(`{"messages":[{"role":"user","content":"^$</think><b>"},{"role":"assistant","content":[{"type":"text","text":"a$"}]}],"tools":"[{\"name\":\"$\"}]"}`))
	f.Add([]byte(`{"conversations":[{"from":"human","value":"a$b"},{"from":"gpt","value":"^"}],"system":"\u0000"}`))
	chat := WithChat(Chat{Template: fakeChat{}})
	f.Fuzz(func(t *testing.T, text []byte) {
		var err error
		hostile.Bounded(t, len(text), 1000, func() { _, err = Read("f", strings.NewReader(string(text)), Alpaca, chat) })
		d, skip := Read("f", strings.NewReader(string(text)), Alpaca, chat, SkipBad())
		if err == nil && (skip != nil || d.Bad() > 0) {
			t.Errorf("good, but with SkipBad %v, %+v", skip, d)
		}
		for _, err := range []error{err, skip} {
			if err != nil && !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("the error does not name the file: %v", err)
			}
		}
		if skip != nil {
			return
		}
		for i := range d.Len() {
			r := d.Row(i)
			if r.place.Line < 1 || len(r.InputIDs) != len(r.Labels) {
				t.Errorf("%+v", r)
			}
			spans := d.Spans(i)
			if learnt := slices.ContainsFunc(spans, func(s Span) bool { return s.Learnt && s.Text != "" }); learnt == (r.Kind == Tokens) {
				t.Errorf("%+v: %+v", r, spans)
			}
		}
		plain, err := Read("f", strings.NewReader(string(text)), Alpaca, chat, SkipBad(), NoSpecialInText([]string{"^", "$", "</s>"}))
		if err != nil || plain.Len() != d.Len() {
			return // a row whose thoughts begin with what is special
		}
		for i := range plain.Len() {
			if r := plain.Row(i); r.Kind == Conversation {
				onlyTheTemplates(t, plain.Spans(i), d.Spans(i))
			}
		}
	})
}

// onlyTheTemplates checks that the special tokens of a conversation are those that fakeChat writes: "^" at its beginning
// and "$" at the end of each turn.
func onlyTheTemplates(t *testing.T, spans, same []Span) {
	t.Helper()
	x := encode(both, spans)
	special, turns := 0, 0
	for i, s := range spans {
		if s.Text != same[i].Text || s.Learnt != same[i].Learnt {
			t.Errorf("%q is %q with special tokens", s.Text, same[i].Text)
		}
		for _, id := range x[i] {
			switch id {
			case 1:
				special += 1000
			case 2:
				special++
			}
		}
		if s.Learnt {
			turns++
		}
	}
	if special/1000 != 1 || special%1000 < turns {
		t.Errorf("%d and %d special tokens in %+v, %d answers", special/1000, special%1000, spans, turns)
	}
}
