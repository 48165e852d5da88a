package rows

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/strictjson"
)

var compareObjects = cmp.Comparer(func(a, b *strictjson.Object) bool {
	return bytes.Equal(strictjson.Format(a), strictjson.Format(b))
})

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// collect splits a sequence into rows and what was wrong, without the directory of the file.
func collect(t testing.TB, path string, rows iter.Seq2[Row, error]) (good []Row, errs []string) {
	t.Helper()
	for row, err := range rows {
		if err != nil {
			errs = append(errs, strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""))
			continue
		}
		good = append(good, row)
	}
	return good, errs
}

func sequence(rows ...Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

var some = []Row{
	{Instruction: "Name the organ.", Input: "It pumps blood.", Output: "Heart", Task: "t", Category: "QA", Source: "s", Split: "train", ID: "1"},
	{Instruction: "Say \"hi\"\\ \u2028<b>\x01\r\n\tnow", Output: "hi\n"},
	{Instruction: "é😀", Output: "x", ID: "3", Extra: []Field{
		{"note", "n"}, {"n", json.Number("12345678901234567890.5")}, {"none", nil}, {"list", []any{true, "a", []any{}}}, {"extra", "e"},
	}},
}

func TestRoundTrip(t *testing.T) {
	for _, ext := range []string{".json", ".jsonl", ".NDJSON", ".parquet"} {
		for n := range len(some) + 1 {
			path := filepath.Join(t.TempDir(), "rows"+ext)
			if got, err := Write(path, sequence(some[:n]...)); err != nil || got != n {
				t.Fatalf("%s: %d rows, %v", ext, got, err)
			}
			got, errs := collect(t, path, Read(t.Context(), path))
			if diff := cmp.Diff(append([]Row(nil), some[:n]...), got, compareObjects); diff != "" || errs != nil {
				t.Errorf("%s: %q %s", ext, errs, diff)
			}
		}
	}
}

func TestWriteBytes(t *testing.T) {
	for format, want := range map[string]string{
		".jsonl": `{"instruction": "i", "input": "", "output": "o", "split": "dev", "k": {"b": 1, "a": null}}` + "\n",
		".json":  "[\n" + `{"instruction": "i", "input": "", "output": "o", "split": "dev", "k": {"b": 1, "a": null}}` + "\n]\n",
	} {
		object, err := strictjson.ParseObject([]byte(`{"b":1,"a":null}`))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if n, err := Encode(&b, format, sequence(Row{Instruction: "i", Output: "o", Split: "dev", Extra: []Field{{"k", object}}})); n != 1 || err != nil || b.String() != want {
			t.Errorf("%s: %d, %v, %s", format, n, err, b.String())
		}
		var all []map[string]any
		if format == ".json" {
			if err := json.Unmarshal(b.Bytes(), &all); err != nil || len(all) != 1 {
				t.Error(all, err)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "empty.json")
	if _, err := Write(path, sequence()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); string(text) != "[]\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWriteLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for want, row := range map[string]Row{
		"the output is empty":                                             {Instruction: "i", Output: " \n"},
		`the field "input" is not UTF-8`:                                  {Instruction: "i", Output: "o", Input: "\xff"},
		`the field "task" is there twice`:                                 {Instruction: "i", Output: "o", Extra: []Field{{"task", "t"}}},
		`the field "a" is there twice`:                                    {Instruction: "i", Output: "o", Extra: []Field{{"a", "t"}, {"a", "t"}}},
		`the field "k" is not UTF-8`:                                      {Instruction: "i", Output: "o", Extra: []Field{{"k", []any{"\xff"}}}},
		`row "7": the instruction is empty`:                               {Output: "o", ID: "7"},
		`row "": the instruction is empty` + "\n" + `the output is empty`: {},
	} {
		for _, ext := range []string{".json", ".jsonl", ".parquet"} {
			if _, err := Write(filepath.Join(dir, "x"+ext), sequence(some[0], row)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	if _, err := Write(filepath.Join(dir, "x.csv"), sequence()); err == nil || !strings.Contains(err.Error(), "end in .json, .jsonl or .parquet") {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRead(t *testing.T) {
	plain := []Row{{Instruction: "i", Input: "a,b", Output: "o\np", ID: "7"}, {Instruction: "j", Output: "q"}}
	extra := []Row{{Instruction: "i", Output: "o", Extra: []Field{{"x", "1"}, {"", "0"}}}}
	for name, c := range map[string]struct {
		file, text string
		want       []Row
		errs       []string
	}{
		"array":         {"a.json", "\xEF\xBB\xBF [{\"instruction\":\"i\",\"input\":\"a,b\",\"output\":\"o\\np\",\"id\":7},\n {\"output\":\"q\",\"instruction\":\"j\",\"input\":null}]\n", plain, nil},
		"lines":         {"a.json", "{\"instruction\":\"i\",\"input\":\"a,b\",\"output\":\"o\\np\",\"id\":7}\r\n\n{\"output\":\"q\",\"instruction\":\"j\"}", plain, nil},
		"array, jsonl":  {"a.jsonl", `[{"instruction":"j","output":"q"}]`, plain[1:], nil},
		"csv":           {"a.CSV", "instruction,input,output,id\r\ni,\"a,b\",\"o\np\",7\r\n\r\nj,,q,", plain, nil},
		"tsv":           {"a.tsv", "\uFEFFinstruction\tinput\toutput\tid\ni\ta,b\t\"o\np\"\t7\nj\t\tq\t\n", plain, nil},
		"other fields":  {"a.csv", "x,instruction,,output\n1,i,0,o\n", extra, nil},
		"empty":         {"a.json", " \n", nil, nil},
		"empty array":   {"a.json", "[ ]", nil, nil},
		"empty csv":     {"a.csv", "", nil, nil},
		"quotes, tsv":   {"a.tsv", "instruction\toutput\n\"i\" is\tsay \"o\"\n\"a \"\"b\"\"\"\t\"\"\n", []Row{{Instruction: `"i" is`, Output: `say "o"`}}, []string{"a.tsv:3: the output is empty"}},
		"quotes, csv":   {"a.csv", "instruction,output\ni,say \"o\"\n\"i\" is,o\nj,q\n", []Row{{Instruction: "i", Output: `say "o"`}, {Instruction: "j", Output: "q"}}, []string{`a.csv:3: field 1 goes on with ' ' after its closing quote; a quote in a quoted field is written twice`}},
		"columns":       {"a.csv", "instruction,output\ni\nj,q\nk,o,\"\nx\"\n,,,\n", plain[1:], []string{"a.csv:2: expected 2 fields as in the first line, got 1", "a.csv:4: expected 2 fields as in the first line, got 3", "a.csv:6: expected 2 fields as in the first line, got 4"}},
		"never closed":  {"a.csv", "instruction,output\nj,q\nj,\"q\n\n", plain[1:], []string{"a.csv:3: the quote that opens field 2 is never closed"}},
		"bad utf8, csv": {"a.csv", "instruction,output\nj,q\xff\nj,q\n", plain[1:], []string{"a.csv:2: field 2: invalid UTF-8 at byte 1"}},
		"twice":         {"a.csv", "a,b, a\n1,2,3", nil, []string{`a.csv:1: the column "a" is there twice; the first line names the columns`}},
		"bad lines": {"a.jsonl", "{\"instruction\":\"j\",\"output\":\"q\"}\n{\"instruction\":\n[1]\n{\"instruction\":3,\"output\":{}}\n{\"a\":\"\xff\"}\n{\"a\":1,\"a\":2}\n{\"prompt\":1}\n{\"instruction\":\"j\",\"output\":\"q\"}", []Row{plain[1], plain[1]}, []string{
			"a.jsonl:2: byte 15 of the row: want a value, but the text ends", `a.jsonl:3: expected a JSON object, got "[1]"`,
			`a.jsonl:4: the field "instruction": expected a string, got the number 3` + "\n" + `the field "output": expected a string, got an object`,
			"a.jsonl:5: invalid UTF-8 at byte 6 of the row", `a.jsonl:6: byte 7 of the row: key "a" is there twice`,
			`a.jsonl:7: expected the fields "instruction" and "output"; the row has "prompt"`}},
		"bad elements": {"a.json", "[{\"instruction\":\"j\",\n\"output\":\"q\"}, 3,\n{\"a\":\nx},{\"instruction\":\"j\",\"output\":\"q\"}]", []Row{plain[1], plain[1]}, []string{
			`a.json:2 (element 1): expected a JSON object, got "3"`, "a.json:3 (element 2): line 4, byte 6 of the row: want a value, got 'x'"}},
		"cut off":    {"a.json", "[{\"instruction\":\"j\",\"output\":\"q\"},\n{\"a\":", plain[1:], []string{"a.json:2: the file ends inside element 1: it is cut off"}},
		"not closed": {"a.json", "[{\"instruction\":\"j\",\"output\":\"q\"}\n", plain[1:], []string{"a.json:2: the file ends inside an array, after 1 elements: it is cut off"}},
		"comma":      {"a.json", "[{\"instruction\":\"j\",\"output\":\"q\"},]", plain[1:], []string{"a.json:1: expected an element after the comma, got the end of the array"}},
		"no comma":   {"a.json", "[{} {}]", nil, []string{`a.json:1 (element 0): expected the fields "instruction" and "output"; the row has no fields`, "a.json:1: expected a comma or the end of the array after element 0, got '{'"}},
		"more after": {"a.json", "[] 3", nil, []string{"a.json:1: expected the end of the file, got '3'"}},
		"text":       {"a.txt", "hello", nil, []string{"a.txt:1: expected JSON, which begins with [ or {, got 'h'; CSV and TSV are told by the end of the name"}},
		"gzip":       {"a.json", "\x1F\x8B....", nil, []string{"a.json: the file is compressed with gzip; unpack it first"}},
		"utf16":      {"a.json", "[\x00{\x00}\x00]\x00", nil, []string{"a.json: the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8"}},
	} {
		path := write(t, c.file, c.text)
		got, errs := collect(t, path, Read(t.Context(), path))
		if diff := cmp.Diff(c.want, got, compareObjects); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(c.errs, errs); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, errs := collect(t, "x/y", Read(t.Context(), t.TempDir())); len(errs) != 1 || !strings.Contains(errs[0], "is a directory") {
		t.Error(errs)
	}
}

func TestShapes(t *testing.T) {
	under, keyed := Shape{Under: "data"}, Shape{Keyed: true}
	for name, c := range map[string]struct {
		file, text string
		shape      Shape
		want       string
	}{
		"under":       {"a.json", `{"v": {"data": [1, "]"]}, "data": [{"a": 1}, {"a": 2}], "w": 3}`, under, `0 {a 1} 1 {a 2}`},
		"an array":    {"a.json", `[{"a": 1}]`, under, `0 {a 1}`},
		"lines":       {"a.jsonl", `{"data": 1}`, under, `-1 {data 1}`},
		"keyed":       {"a.json", "{\"x\\n\": {\"a\": 1},\n \"y\": {}, \"x\": 3}", keyed, "0 \"x\\n\" {a 1} 1 \"y\" {} a.json:2 (element 2): expected a JSON object, got \"3\""},
		"empty":       {"a.json", `{}`, keyed, ""},
		"not there":   {"a.json", `{"b": 1}`, under, `a.json:1: the object has no key "data"`},
		"no array":    {"a.json", `{"data": {}}`, under, `a.json:1: expected an array under the key "data", got '{'`},
		"twice":       {"a.json", `{"data": [], "data": []}`, under, `a.json:1: the key "data" is there twice`},
		"cut":         {"a.json", `{"a": 1, "dat`, under, `a.json:1: the file ends inside a key: it is cut off`},
		"cut value":   {"a.json", `{"a": "1`, under, `a.json:1: the file ends inside an object: it is cut off`},
		"cut after":   {"a.json", `{"data": [{"a": 1}]`, under, `0 {a 1} a.json:1: the file ends inside an object: it is cut off`},
		"cut keyed":   {"a.json", `{"data": {"a": 1}`, keyed, `0 "data" {a 1} a.json:1: the file ends inside an object: it is cut off`},
		"colon":       {"a.json", `{"data" 1}`, keyed, `a.json:1: expected a colon after the key, got '1'`},
		"key":         {"a.json", `{data: 1}`, keyed, `a.json:1: expected a key in quotes, got 'd'`},
		"comma":       {"a.json", `{"a": {} "b": {}}`, keyed, `0 "a" {} a.json:1: expected a comma or the end of the object, got '"'`},
		"two objects": {"a.json", `{"a": {}} {}`, keyed, `0 "a" {} a.json:1: expected the end of the file, got '{'`},
	} {
		path := write(t, c.file, c.text)
		var got []string
		for rec, err := range Records(t.Context(), path, c.shape) {
			if err != nil {
				got = append(got, strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""))
				continue
			}
			s := fmt.Sprint(rec.Element)
			if rec.Key != "" {
				s += fmt.Sprintf(" %q", rec.Key)
			}
			var fields []string
			for _, k := range rec.Fields.Keys {
				v, _ := rec.Fields.Get(k)
				fields = append(fields, fmt.Sprint(k, " ", v))
			}
			got = append(got, s+" {"+strings.Join(fields, " ")+"}")
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: got  %s\nwant %s", name, s, c.want)
		}
	}
}

// A table without rows as pyarrow writes it has a group of no rows: pq.write_table of two columns of text.
func TestEmptyParquet(t *testing.T) {
	text, err := base64.StdEncoding.DecodeString("UEFSMRUEFQAVAkwVABUAEgAAABUEFQAVAkwVABUAEgAAABUEGTw1ABgGc2NoZW1hFQQAFQwlAhgLaW5zdHJ1Y3Rpb24lAEwcAAAAFQwlAhgGb3" +
		"V0cHV0JQBMHAAAABYAGRwZLCYAHBUMGSUABhkYC2luc3RydWN0aW9uFQIWABYcFh4mACYIKRwVBBUAFQIAAAAmABwVDBklAAYZGAZvdXRwdXQV" +
		"AhYAFhwWHiYAJiYpHBUEFQAVAgAAABY4FgAmCBY8ABkcGAxBUlJPVzpzY2hlbWEY4AEvLy8vLzZBQUFBQVFBQUFBQUFBS0FBd0FCZ0FGQUFnQU" +
		"NnQUFBQUFCQkFBTUFBQUFDQUFJQUFBQUJBQUlBQUFBQkFBQUFBSUFBQUJBQUFBQUJBQUFBTmovLy84QUFBRUZFQUFBQUJnQUFBQUVBQUFBQUFB" +
		"QUFBWUFBQUJ2ZFhSd2RYUUFBTVQvLy84UUFCUUFDQUFHQUFjQURBQUFBQkFBRUFBQUFBQUFBUVVRQUFBQUlBQUFBQVFBQUFBQUFBQUFDd0FBQU" +
		"dsdWMzUnlkV04wYVc5dUFBUUFCQUFFQUFBQQAYIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4xGSwcAAAcAAAAwQEAAFBBUjE=")
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "empty.parquet", string(text))
	if got, errs := collect(t, path, Read(t.Context(), path)); len(got) != 0 || len(errs) != 0 {
		t.Errorf("%d rows, %q", len(got), errs)
	}
}

// TestParquetOfOthers reads a file as pandas and Hugging Face's datasets write them: optional columns, lists, groups,
// numbers.
func TestParquetOfOthers(t *testing.T) {
	type option struct {
		Key   *string `parquet:"key,optional"`
		Value *string `parquet:"value,optional"`
	}
	type row struct {
		ID          int64    `parquet:"id"`
		Instruction *string  `parquet:"instruction,optional"`
		Output      []byte   `parquet:"output"`
		Options     []option `parquet:"options,list"`
		Score       *float64 `parquet:"score,optional"`
		Yes         bool     `parquet:"yes"`
	}
	i, k := "i", "A"
	half := 0.5
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := parquet.WriteFile(path, []row{
		{1, &i, []byte("o"), []option{{&k, &i}, {nil, nil}}, &half, true},
		{2, nil, []byte("o"), nil, nil, false},
		{3, &i, []byte("\xff"), nil, nil, false},
	}); err != nil {
		t.Fatal(err)
	}
	got, errs := collect(t, path, Read(t.Context(), path))
	if want := []string{`x.parquet: row 2: the instruction is empty`, `x.parquet: row 3: column "output": invalid UTF-8 at byte 0`}; !cmp.Equal(errs, want) {
		t.Errorf("%q", errs)
	}
	if len(got) != 1 {
		t.Fatalf("%d rows", len(got))
	}
	const want = `{"instruction": "i", "input": "", "output": "o", "id": "1", "options": [{"key": "A", "value": "i"}, {"key": null, "value": null}], "score": 0.5, "yes": true}`
	if text := string(appendRow(nil, &got[0])); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{4, 8, len(whole) / 2, len(whole) - 1} {
		path := write(t, "cut.parquet", string(whole[:n]))
		if _, errs := collect(t, path, Read(t.Context(), path)); len(errs) != 1 || !strings.HasPrefix(errs[0], "cut.parquet: ") {
			t.Errorf("%d of %d bytes: %q", n, len(whole), errs)
		}
	}
}

func TestBad(t *testing.T) {
	path := write(t, "a.jsonl", strings.Repeat("{\"instruction\":\"j\",\"output\":\"q\"}\n3\n", 25))
	for limit, whole := range map[int]bool{0: false, 24: false, 25: true, -1: true} {
		b := Bad{Limit: limit}
		good, errs := collect(t, path, b.LeaveOut(Read(t.Context(), path)))
		if len(good) != 25 || b.Rows != 25 || b.Count != 25 || len(b.First) != 20 || (errs == nil) != whole {
			t.Errorf("limit %d: %d rows, %+v, %q", limit, len(good), b, errs)
		}
		if whole {
			continue
		}
		lines := strings.Split(errs[0], "\n")
		if len(errs) != 1 || len(lines) != 21 || lines[1] != `a.jsonl:4: expected a JSON object, got "3"` ||
			lines[20] != fmt.Sprintf("5 more bad rows; 25 of 50 rows are bad, at most %d may be", limit) {
			t.Errorf("limit %d: %s", limit, errs[0])
		}
	}
	path = write(t, "b.json", "[3, 4")
	b := Bad{Limit: -1}
	_, errs := collect(t, path, b.LeaveOut(Read(t.Context(), path)))
	if want := []string{"b.json:1 (element 0): expected a JSON object, got \"3\"\nb.json:1: the file ends inside element 1: it is cut off"}; !cmp.Equal(errs, want) {
		t.Errorf("%q", errs)
	}
}

func TestContext(t *testing.T) {
	path := write(t, "a.jsonl", strings.Repeat("{\"instruction\":\"j\",\"output\":\"q\"}\n", 3))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range Read(ctx, path) {
		if err != nil {
			if !errors.Is(err, context.Canceled) || n != 1 {
				t.Errorf("after %d rows: %v", n, err)
			}
			return
		}
		n++
		cancel()
	}
	t.Error("the context did not end the reading")
}

// TestStreams copies as many rows as MedTuned has, from format to format, and looks at what is in memory on the way.
func TestStreams(t *testing.T) {
	n := 200_252
	if testing.Short() {
		n = 20_000
	}
	made := func(yield func(Row, error) bool) {
		for i := range n {
			r := some[0]
			r.ID = fmt.Sprint(i)
			r.Input = strings.Repeat(r.ID+" ", 20)
			if !yield(r, nil) {
				return
			}
		}
	}
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	dir := t.TempDir()
	from := ""
	for _, name := range []string{"a.parquet", "b.jsonl", "c.parquet"} {
		var rows iter.Seq2[Row, error] = made
		if from != "" {
			rows = Read(t.Context(), from)
		}
		i := 0
		watched := func(yield func(Row, error) bool) {
			for r, err := range rows {
				if i++; i%(n/8) == 0 {
					if got := live(); got > before+(48<<20) {
						t.Errorf("%s: %d MiB are in memory at row %d", name, (got-before)>>20, i)
					}
				}
				if !yield(r, err) {
					return
				}
			}
		}
		to := filepath.Join(dir, name)
		if got, err := Write(to, watched); err != nil || got != n {
			t.Fatalf("%s: %d rows, %v", name, got, err)
		}
		from = to
	}
	first, err := os.ReadFile(filepath.Join(dir, "a.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	if copied, err := os.ReadFile(from); err != nil || !bytes.Equal(first, copied) {
		t.Errorf("the copy of a copy differs: %v", err)
	}
}

// FuzzCSV compares with encoding/csv where both take a text.
func FuzzCSV(f *testing.F) {
	f.Add("a,b\n1,\"x\"\"y\n\"\r\n\n2,\n")
	f.Add("a\r\n\"\"\r\n1\r")
	f.Add("0\n\"\"\n1")
	f.Fuzz(func(t *testing.T, text string) {
		r := csv.NewReader(strings.NewReader(text))
		want, err := r.ReadAll()
		if err != nil || len(want) == 0 || strings.Contains(text, "\r") || jsoncut.InvalidAt([]byte(text)) >= 0 || strings.ContainsAny(text, "\x00") {
			return
		}
		if first := text[:1]; first == "\uFEFF" || first == "\n" {
			return
		}
		next, err := open("x.csv", strings.NewReader(text), int64(len(text)), Shape{})
		if err != nil {
			return // of another format by its first bytes
		}
		var got [][]string
		for {
			rec, err := next()
			if err != nil {
				if len(got) > 0 && len(got) < len(want)-1 {
					t.Fatalf("%q: %v after %d of %d", text, err, len(got), len(want)-1)
				}
				break
			}
			var row []string
			for _, k := range rec.Fields.Keys {
				v, _ := rec.Fields.Get(k)
				row = append(row, v.(string))
			}
			got = append(got, row)
		}
		for i, row := range got {
			if !cmp.Equal(row, want[i+1]) {
				t.Fatalf("%q: row %d is %q, want %q", text, i, row, want[i+1])
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, text := range []string{
		`[{"instruction":"i","output":"o","x":[1,{"y":null}]}]`, "{\"instruction\":\"i\",\"output\":\"o\"}\n3\n",
		"instruction,output\n\"a\"\"b\",c\n", "instruction\toutput\n\"a\tb", `{"data":[{"a":1}],"b":2}`, `{"k":{"instruction":"i","output":"o"}}`,
	} {
		for kind := range uint8(6) {
			f.Add(kind, []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		if bytes.HasPrefix(data, []byte("PAR1")) {
			return
		}
		names := []string{"a.json", "a.jsonl", "a.csv", "a.tsv"}
		shapes := []Shape{{}, {Under: "data"}, {Keyed: true}}
		name, shape := names[kind%4], shapes[kind/4%3]
		var good []Row
		hostile.Bounded(t, len(data), 400, func() {
			good = nil
			next, err := open(name, bytes.NewReader(data), int64(len(data)), shape)
			if err != nil {
				return
			}
			for rec, err := range func(yield func(Record, error) bool) { drain(t.Context(), next, yield) } {
				if err == nil {
					var row Row
					if row, err = parse(rec); err == nil {
						good = append(good, row)
						continue
					}
				}
				if !strings.HasPrefix(err.Error(), name+":") {
					t.Fatalf("an error without a place: %v", err)
				}
			}
		})
		var out bytes.Buffer
		if n, err := Encode(&out, ".jsonl", sequence(good...)); err != nil || n != len(good) {
			t.Fatalf("%d of %d rows: %v", n, len(good), err)
		}
		next, err := open("b.jsonl", bytes.NewReader(out.Bytes()), int64(out.Len()), Shape{})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range good {
			rec, err := next()
			if err != nil {
				t.Fatal(err)
			}
			got, err := parse(rec)
			if err != nil || !bytes.Equal(appendRow(nil, &got), appendRow(nil, &want)) {
				t.Fatalf("%+v became %+v: %v", want, got, err)
			}
		}
	})
}

func FuzzParquet(f *testing.F) {
	var b bytes.Buffer
	if _, err := Encode(&b, ".parquet", sequence(some...)); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), 30, byte(0xff))
	f.Add(b.Bytes()[:b.Len()-9], 10, byte(1))
	f.Fuzz(func(t *testing.T, data []byte, at int, flip byte) {
		if len(data) > 1<<16 {
			return
		}
		data = bytes.Clone(data)
		if at >= 0 && at < len(data) {
			data[at] ^= flip
		}
		next, err := open("a.parquet", bytes.NewReader(data), int64(len(data)), Shape{})
		if err != nil {
			return
		}
		for i := range 100 {
			if _, err := next(); err != nil && !errors.As(err, new(*Error)) {
				if i > 0 {
					_, again := next()
					if again == nil {
						t.Fatal("there is more after the end")
					}
				}
				return
			}
		}
	})
}

// TestBioInstruct reads the real rows.
func TestBioInstruct(t *testing.T) {
	path := golden.Shared(t, "data", "bioinstruct", "bioinstruct-2501.json")
	good, errs := collect(t, path, Read(t.Context(), path))
	if len(good) != 2501 || errs != nil {
		t.Fatalf("%d rows, %q", len(good), errs)
	}
	copied := filepath.Join(t.TempDir(), "copy.parquet")
	if _, err := Write(copied, sequence(good...)); err != nil {
		t.Fatal(err)
	}
	again, errs := collect(t, copied, Read(t.Context(), copied))
	if diff := cmp.Diff(good, again, compareObjects); diff != "" || errs != nil {
		t.Error(errs, diff)
	}
}
