package tokenizer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/golden"
)

// shared returns a path in ../shared, which holds larger reference data; the test is skipped where it is absent.
func shared(t testing.TB, parts ...string) string {
	t.Helper()
	return golden.Shared(t, parts...)
}

func loadShared(t testing.TB, parts ...string) *Tokenizer {
	t.Helper()
	tok, err := Load(shared(t, parts...))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func numbers(t *testing.T, line string) []int32 {
	t.Helper()
	ids := []int32{}
	for _, f := range strings.Fields(line) {
		n, err := strconv.ParseInt(f, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, int32(n))
	}
	return ids
}

func TestSharedEnds(t *testing.T) {
	for _, c := range []struct {
		path           []string
		bos, eos, size int // -1 for none
	}{
		{[]string{"tokenizers", "llama1-hf"}, 1, 2, 32001},
		{[]string{"tokenizers", "llama2"}, 1, -1, 32000},   // nothing beside tokenizer.json names an EOS
		{[]string{"tokenizers", "llama3"}, -1, -1, 128256}, // it has no post-processor either
		{[]string{"models", "stories260K"}, 1, 2, 512},
		{[]string{"goldens", "stories260k-bioinstruct", "model"}, 1, 2, 512},
	} {
		tok := loadShared(t, c.path...)
		bos, _ := tok.BOS()
		eos, _ := tok.EOS()
		if int(bos) != c.bos || int(eos) != c.eos || tok.VocabSize() != c.size {
			t.Errorf("%v: BOS %d, EOS %d, size %d; want %d, %d, %d", c.path, bos, eos, tok.VocabSize(), c.bos, c.eos, c.size)
		}
		if w := tok.Warnings(); len(w) > 0 {
			t.Errorf("%v: warnings %q", c.path, w)
		}
	}
}

// TestStoriesRows tokenises the rows of the stories case as it was made: BOS, prompt, answer, EOS, cut at 512.
func TestStoriesRows(t *testing.T) {
	dir := shared(t, "goldens", "stories260k-bioinstruct")
	tok := loadShared(t, "goldens", "stories260k-bioinstruct", "model")
	var spec struct {
		WithInput    string `json:"prompt_input"`
		WithoutInput string `json:"prompt_no_input"`
	}
	readJSON(t, filepath.Join(dir, "case.json"), &spec)
	bos, _ := tok.BOS()
	eos, _ := tok.EOS()
	texts, rows := lines(t, filepath.Join(dir, "text.jsonl")), lines(t, filepath.Join(dir, "rows.jsonl"))
	if len(texts) != len(rows) || len(rows) != 500 {
		t.Fatalf("%d texts, %d rows, want 500", len(texts), len(rows))
	}
	for i := range rows {
		var row struct {
			InputIDs []int32 `json:"input_ids"`
		}
		if err := json.Unmarshal(rows[i], &row); err != nil {
			t.Fatal(err)
		}
		var text struct{ Template, Instruction, Input, Output string }
		if err := json.Unmarshal(texts[i], &text); err != nil {
			t.Fatal(err)
		}
		prompt := spec.WithoutInput
		if text.Template == "input" {
			prompt = spec.WithInput
		}
		prompt = strings.NewReplacer("{instruction}", text.Instruction, "{input}", text.Input).Replace(prompt)
		ids := append([]int32{bos}, tok.Encode(prompt)...)
		ids = append(append(ids, tok.EncodeContinuation(text.Output)...), eos)
		if ids = ids[:min(len(ids), 512)]; !slices.Equal(ids, row.InputIDs) {
			t.Fatalf("row %d\n got %v\nwant %v", i, ids, row.InputIDs)
		}
		whole := append([]int32{bos}, tok.Encode(prompt+text.Output)...)
		if n := min(len(whole), 512); !slices.Equal(whole[:n], row.InputIDs[:n]) {
			t.Fatalf("row %d in one piece\n got %v\nwant %v", i, whole[:n], row.InputIDs)
		}
	}
}

// TestStoriesGolden decodes the greedy text of the real model.
func TestStoriesGolden(t *testing.T) {
	var golden struct {
		IDs  []int32 `json:"greedy_ids"`
		Text string
	}
	readJSON(t, shared(t, "models", "stories260K", "GOLDEN_derived.json"), &golden)
	tok := loadShared(t, "models", "stories260K")
	if got := tok.Decode(golden.IDs); got != golden.Text {
		t.Errorf("Decode\n got %q\nwant %q", got, golden.Text)
	}
	if got := streamed(tok.Stream(), golden.IDs); got != golden.Text {
		t.Errorf("Stream\n got %q\nwant %q", got, golden.Text)
	}
}

func lines(t testing.TB, path string) [][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list [][]byte
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	for sc.Scan() {
		list = append(list, slices.Clone(sc.Bytes()))
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

const prose = "The patient received metformin 500 mg twice daily and was followed up for 12.5 weeks (p < 0.05). "

func BenchmarkLoad(b *testing.B) {
	for _, files := range forms {
		for _, file := range files {
			b.Run(strings.Join(file, "/"), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					loadForm(b, file)
				}
			})
		}
	}
}

// megabytes are texts of 1 MB: one like any other, and those that take longest.
func megabytes() map[string]string {
	rng := rand.New(rand.NewPCG(3, 4))
	letters := make([]byte, 1e6)
	for i := range letters {
		letters[i] = "abcdefghijklmnopqrstuvwxyz"[rng.IntN(26)]
	}
	return map[string]string{
		"prose":    strings.Repeat(prose, 1e6/len(prose)),
		"letter":   strings.Repeat("a", 1e6),
		"letters":  string(letters), // one word
		"spaces":   strings.Repeat(" ", 1e6),
		"newlines": strings.Repeat("\n", 1e6),
		"invalid":  strings.Repeat("\xff", 1e6),
		"halves":   strings.Repeat("\xe2\x96", 5e5),
		"emoji":    strings.Repeat("🙂é", 166_666),
		"marks":    strings.Repeat("▁", 333_333),
		"specials": strings.Repeat("<s></s>", 142_857),
		"begins":   strings.Repeat("<|begin_of_text|>", 58_823),
		"openings": strings.Repeat("<|", 5e5), // of special tokens that do not come
	}
}

func BenchmarkEncode(b *testing.B) {
	texts := megabytes()
	texts["bioinstruct"] = bioInstruct(b)
	for _, files := range forms {
		for _, file := range files {
			tok := loadForm(b, file)
			for _, what := range slices.Sorted(maps.Keys(texts)) {
				b.Run(strings.Join(file, "/")+"/"+what, func(b *testing.B) {
					b.SetBytes(int64(len(texts[what])))
					for b.Loop() {
						tok.Encode(texts[what])
					}
				})
			}
		}
	}
}

// bioInstruct is the first megabyte of BioInstruct's instructions, inputs and outputs.
func bioInstruct(b *testing.B) string {
	data, err := os.ReadFile(shared(b, "data", "bioinstruct", "bioinstruct-2501.json"))
	if err != nil {
		b.Fatal(err)
	}
	var rows []struct{ Instruction, Input, Output string }
	if err := json.Unmarshal(data, &rows); err != nil {
		b.Fatal(err)
	}
	var text strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&text, "%s\n%s\n%s\n", r.Instruction, r.Input, r.Output)
	}
	return strings.ToValidUTF8(text.String()[:1_000_000], "")
}

// TestMegabytes encodes and decodes long texts of one kind: nothing takes a time that grows with the square of the text.
func TestMegabytes(t *testing.T) {
	if testing.Short() {
		return
	}
	for _, name := range []string{"llama2", "llama3"} {
		tok := loadForm(t, []string{name, "tokenizer.model"})
		for what, text := range megabytes() {
			ids := tok.Encode(text)
			if back := tok.Decode(ids); name == "llama3" && utf8.ValidString(text) && what != "begins" && back != text {
				t.Errorf("%s: %s did not come back", name, what)
			}
			if len(ids) < 1000 || len(ids) > 1e6+1 {
				t.Errorf("%s: %s has %d tokens", name, what, len(ids))
			}
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"llama2", "llama3"} {
		tok := loadShared(b, "tokenizers", name)
		ids := tok.Encode(strings.Repeat(prose, 1e6/len(prose)))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(1e6)
			for b.Loop() {
				tok.Decode(ids)
			}
		})
	}
}
