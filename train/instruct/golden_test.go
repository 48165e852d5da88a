package instruct_test

import (
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train/instruct"
)

// The reference's rows are its texts through the Alpaca template, cut at 512, id for id and label for label.
func TestStories(t *testing.T) {
	dir := golden.Shared(t, "goldens", "stories260k-bioinstruct")
	c := golden.Read(t, dir)
	tok, err := tokenizer.Load(c.Path("model"))
	if err != nil {
		t.Fatal(err)
	}
	for texts, rows := range map[string][]golden.Row{
		"text.jsonl":      c.Rows,
		"eval_text.jsonl": golden.Rows(t, c.Path("eval_rows.jsonl")),
	} {
		d, err := instruct.Open(c.Path(texts), instruct.Alpaca)
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Tokenize(t.Context(), tok, instruct.TokenizeOptions{MaxLength: 512, VocabSize: 512})
		if err != nil {
			t.Fatal(err)
		}
		if len(x.List) != len(rows) || x.NoLabel != 0 || x.NoEOS {
			t.Fatalf("%s: %d examples, want %d; %d without a label; no EOS: %v", texts, len(x.List), len(rows), x.NoLabel, x.NoEOS)
		}
		for i := range x.List {
			e := &x.List[i]
			if !slices.Equal(e.IDs, rows[i].InputIDs) {
				t.Errorf("%s: row %d has the ids\n%v, want\n%v", texts, i, e.IDs, rows[i].InputIDs)
			}
			for j, want := range rows[i].Labels {
				if got := e.Label(j); got != want {
					t.Errorf("%s: row %d has the label %d at %d, want %d", texts, i, got, j, want)
					break
				}
			}
		}
		if texts == "text.jsonl" && x.Cut != 108 {
			t.Errorf("%d rows are cut, want 108", x.Cut)
		}
	}
}

// Of the first 516 rows of the data file the reference keeps 500 and skips 16; 39 of the 500 have no input.
func TestBioInstruct(t *testing.T) {
	file := golden.Shared(t, "data", "bioinstruct", "bioinstruct-2501.json")
	c := golden.Read(t, golden.Shared(t, "goldens", "stories260k-bioinstruct"))
	tok, err := tokenizer.Load(c.Path("model"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := instruct.Open(file, instruct.Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	if d.Len() != 2501 || d.Bad() != 0 {
		t.Errorf("%d rows, %d bad", d.Len(), d.Bad())
	}
	x, err := d.Tokenize(t.Context(), tok, instruct.TokenizeOptions{MaxLength: 512, VocabSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range c.Rows {
		if !slices.Equal(x.List[i].IDs, want.InputIDs) {
			t.Fatalf("example %d is not the reference's", i)
		}
	}
	if last := x.List[len(c.Rows)-1].Row(); last != 515 {
		t.Errorf("example 499 is row %d, want 515", last)
	}
}

// In the built-in templates no token crosses the border of prompt and response: encoded apart, as here, or in one
// piece, as others do it, the ids are the same.
func TestBorder(t *testing.T) {
	c := golden.Read(t, golden.Shared(t, "goldens", "stories260k-bioinstruct"))
	tok, err := tokenizer.Load(c.Path("model"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tmpl := range []instruct.Template{instruct.Alpaca, instruct.MedTuned} {
		d, err := instruct.Open(c.Path("text.jsonl"), tmpl)
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Tokenize(t.Context(), tok, instruct.TokenizeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		bos, _ := tok.BOS()
		eos, _ := tok.EOS()
		for i := range x.List {
			spans := d.Spans(x.List[i].Row())
			want := slices.Concat([]int32{bos}, tok.Encode(spans[0].Text+spans[1].Text), []int32{eos})
			if !slices.Equal(x.List[i].IDs, want) {
				t.Fatalf("%s: row %d has the ids\n%v, in one piece\n%v", tmpl.Name, i, x.List[i].IDs, want)
			}
		}
	}
}
