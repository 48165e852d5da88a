package medtuned

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/rows"
)

// TestRealCorpora converts the corpora of the developers' machines: every record becomes a row. The hashes are
// those of testdata/reference.py, which converts the corpora by other code.
func TestRealCorpora(t *testing.T) {
	dir := golden.Shared(t, "data")
	for _, c := range []struct {
		converter string
		files     []string
		splits    map[string]int
		skipped   int
		hash      string
	}{
		{"ncbi-disease", []string{"ner/NCBI-disease-IOB.train.tsv", "ner/NCBI-disease-IOB.devel.tsv", "ner/NCBI-disease-IOB.test.tsv"}, map[string]int{"train": 5424, "dev": 923, "test": 940}, 0, "254f9a9580a1dbae84d1c5e58269062e1f4db4b7c166869fad1cd35172f9790f"},
		{"bc5cdr-disease", []string{"ner/BC5CDR-disease-IOB.train.tsv", "ner/BC5CDR-disease-IOB.devel.tsv", "ner/BC5CDR-disease-IOB.test.tsv"}, map[string]int{"train": 4560, "dev": 4581, "test": 4797}, 0, "3898a9d62b2754d4c148b48fdc64142c92a9c3bc1feb697e19d36b6851be4a1d"},
		{"bc5cdr-chem", []string{"ner/BC5CDR-chem-IOB.train.tsv", "ner/BC5CDR-chem-IOB.devel.tsv", "ner/BC5CDR-chem-IOB.test.tsv"}, map[string]int{"train": 4560, "dev": 4581, "test": 4797}, 0, "3d8174389ebd7d29521087798bb7bd920a6d58b9bde96a1b4dd28f822c6f41bb"},
		{"jnlpba", []string{"ner/JNLPBA.devel.tsv", "ner/JNLPBA.test.tsv"}, map[string]int{"dev": 1739, "test": 3856}, 604, "4622e70de2656de33debf346384c170c1b81c72623acf29c275bab755b9941d2"},
		{"ner-typed", []string{"ner/JNLPBA.devel.tsv"}, map[string]int{"dev": 1739}, 200, "afc34a3647d8e44ea926b24fc468b8473d240a7f6c6df9f332b5c716d660018e"},
		{"gad", []string{"gad/gad-fold0-train.jsonl", "gad/gad-fold0-test.jsonl"}, map[string]int{"train": 4796, "test": 534}, 0, "34afbe2cfb1e7b1e2260027c7c3fa600f06ef0ac0bcd09674e64ec87396ae551"},
		{"medqa", []string{"medqa/medqa5_test.json"}, map[string]int{"test": 1273}, 0, "259983bbdaf08b5d85a3325370d15d6e425cd5fa21d4cae255f8a8e70dfab9a8"},
		{"pubmedqa", []string{"pubmedqa/ori_pqal.json", "pubmedqa/test_ground_truth.json"}, map[string]int{"train": 500, "test": 500}, 0, "bb6dbe262112bcdc50a5123654faa0e92bb253bd74326fc3347e6da0e5e5885e"},
		{"mts-dialog", []string{"mts-dialog/train.csv", "mts-dialog/valid.csv", "mts-dialog/test1.csv"}, map[string]int{"train": 1201, "dev": 100, "test": 200}, 0, "26c3c50e73f70d154288bd398f8e5dfcc0d336943cfe59a2435a5b42c8fbd46a"},
		{"aci-bench", []string{"aci-bench/valid.json"}, map[string]int{"dev": 20}, 0, "c050ecf3f9db783529e415741c451217f2711770ca205bb802a2cffcf882f1e5"},
	} {
		var files []string
		for _, f := range c.files {
			files = append(files, filepath.Join(dir, f))
		}
		conv, err := Lookup(c.converter)
		if err != nil {
			t.Fatal(err)
		}
		skipped := 0
		splits, ids := map[string]int{}, map[string]bool{}
		h := sha256.New()
		var list []rows.Row
		for row, err := range conv.Convert(t.Context(), files, Options{Seed: 42, Skipped: func(rows.Place, string) { skipped++ }}) {
			if err != nil {
				t.Errorf("%s: %v", c.converter, err)
				continue
			}
			if ids[row.ID] {
				t.Errorf("%s: the id %s is there twice", c.converter, row.ID)
			}
			if conv.Task.Parser == "choice" && !slices.Contains(Choices(row.Input), row.Output[len("A. "):]) {
				t.Errorf("%s: %q is none of %q", row.ID, row.Output, Choices(row.Input))
			}
			list = append(list, row)
			splits[row.Split]++
			ids[row.ID] = true
			for _, text := range []string{row.ID, row.Split, row.Input, row.Output} {
				io.WriteString(h, text+"\x00")
			}
		}
		scoreGold(t, conv.Task, list[:min(500, len(list))])
		if diff := cmp.Diff(c.splits, splits); diff != "" || skipped != c.skipped {
			t.Errorf("%s: %s, %d skipped", c.converter, diff, skipped)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != c.hash {
			t.Errorf("%s: the rows are not those seen before: hash %s", c.converter, got)
		}
	}
}
