package dataset

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/train"
)

func TestDefaultsAreThePackages(t *testing.T) {
	o, d := train.Options{}, Defaults()
	d.Options(&o)
	want := train.Options{TrainOnInputs: train.Defaults().TrainOnInputs, MaxSeqLength: train.Defaults().MaxSeqLength}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Error(diff)
	}
	if f := Flags(); f["template"] != "alpaca" || f["max-seq-length"] != 0 || f["field-input"] != nil {
		t.Errorf("the flags' defaults are %v", f)
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(`{"task": "T", "given": "nichts", "said": "A"}`+"\n{\"x\": 1}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	r := Defaults()
	r.FieldInstruction, r.FieldInput, r.FieldOutput = "task", "given", "said"
	r.EmptyInput = []string{"Nichts"}
	if _, err := r.Open([]string{path}); err == nil || !strings.Contains(err.Error(), path+":2: ") {
		t.Errorf("a bad row: %v", err)
	}
	r.SkipBadRows = true
	d, err := r.Open([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	row := d.Row(0)
	if d.Len() != 1 || row.Instruction != "T" || row.Input != "nichts" || row.Output != "A" || !slices.Contains(d.Template.EmptyInputs, "nichts") {
		t.Errorf("%d rows, the first is %+v", d.Len(), row)
	}
	r.Template = "no/such"
	if _, err := r.Open([]string{path}); err == nil || !strings.Contains(err.Error(), "no/such") {
		t.Errorf("no template: %v", err)
	}
}
