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

func TestOpenFor(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("tokenizer.json", `{"model": {"vocab": {"a": 0}, "merges": []}}`)
	path := write("rows.jsonl", `{"task": "T", "given": "nichts", "said": "A"}`+"\n{\"x\": 1}\n")
	r := Defaults()
	r.FieldInstruction, r.FieldInput, r.FieldOutput = "task", "given", "said"
	r.EmptyInput = []string{"Nichts"}
	open := func() (*Data, error) { return r.OpenFor(t.Context(), dir, []string{path}) }
	if _, err := open(); err == nil || !strings.Contains(err.Error(), path+":2: ") {
		t.Errorf("a bad row: %v", err)
	}
	r.SkipBadRows = true
	d, err := open()
	if err != nil {
		t.Fatal(err)
	}
	row := d.Rows.Row(0)
	if d.Rows.Len() != 1 || row.Instruction != "T" || row.Input != "nichts" || row.Output != "A" || !slices.Contains(d.Rows.Template.EmptyInputs, "nichts") {
		t.Errorf("%d rows, the first is %+v", d.Rows.Len(), row)
	}
	if len(d.Warnings) == 0 || !strings.HasPrefix(d.Warnings[0], "left out: "+path+":2: ") {
		t.Errorf("warnings %q", d.Warnings)
	}
	for want, change := range map[string]func(r *Rows){
		"no/such": func(r *Rows) { r.Template = "no/such" },
		"--system-prompt (system_prompt) is for conversations, and no row is one": func(r *Rows) { r.SystemPrompt = "x" },
		`--assistant-turns (assistant_turns): "some" is none of all, last`:        func(r *Rows) { r.AssistantTurns = "some" },
		`--template-date (template_date): "soon" is no date`:                      func(r *Rows) { r.TemplateDate = "soon" },
		`chat template "no/such" is neither`:                                      func(r *Rows) { r.ChatTemplate = "no/such" },
	} {
		before := r
		change(&r)
		if _, err := open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		r = before
	}
}
