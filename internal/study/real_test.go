package study

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/golden"
)

// The way from real corpora to a report is open on a real, if tiny, model: 260,000 parameters that know children's stories.
// Its figures are poor, as they must be; what is tested is that they are there, of the rows and splits that were asked for,
// and that the form of the answers, which can be learnt so quickly, is.
func TestRealCorpora(t *testing.T) {
	if testing.Short() {
		t.Skip("builds three commands and trains, and -short is set")
	}
	var (
		model  = golden.Shared(t, "models", "stories260K")
		ner    = golden.Shared(t, "data", "ner")
		gad    = golden.Shared(t, "data", "gad")
		w      = newWorkplace(t)
		recipe = "sources:\n  - {name: ner, files: [ner-train.jsonl], count: 1000}\n  - {name: gad, files: [gad-train.jsonl], count: 1000}\n"
	)
	w.put("recipe.yaml", recipe)
	for _, line := range []string{
		"lora-data convert ncbi-disease " + filepath.Join(ner, "NCBI-disease-IOB.train.tsv") + " --out ner-train.jsonl",
		"lora-data convert ncbi-disease " + filepath.Join(ner, "NCBI-disease-IOB.devel.tsv") + " --out ner-dev.jsonl",
		"lora-data convert gad " + filepath.Join(gad, "gad-fold0-train.jsonl") + " --out gad-train.jsonl",
		"lora-data convert gad " + filepath.Join(gad, "gad-fold0-test.jsonl") + " --out gad-test.jsonl",
		"lora-data mix --recipe recipe.yaml --test ner=ner-dev.jsonl --test gad=gad-test.jsonl --leakage drop --out train.jsonl",
		"lora-train --model " + model + " --data train.jsonl --out adapter --target-modules all-linear --learning-rate 3e-3 --max-steps 150 --per-device-train-batch-size 4 --max-seq-length 512",
		"lora-eval run --model " + model + " --adapter adapter --with-base --task ncbi-disease=ner-dev.jsonl --task gad=gad-test.jsonl --limit 40 --max-new-tokens 128 --out eval",
	} {
		w.carryOut(line)
	}
	var res eval.Results
	if err := json.Unmarshal([]byte(w.get("eval/"+eval.ResultsFile)), &res); err != nil {
		t.Fatal(err)
	}
	report := w.get("eval/" + eval.ReportFile)
	for i, want := range []struct{ task, split, metric string }{{"ncbi-disease", "dev", "f1"}, {"gad", "test", "micro_f1"}} {
		x := res.Tasks[i]
		if x.Name != want.task || x.Split != want.split || x.Main != want.metric || x.Rows != 40 || len(x.Scores) != 2 {
			t.Fatalf("%+v", x)
		}
		for _, s := range x.Scores {
			m, _ := s.Metric(x.Main)
			figure := fmt.Sprintf("%.1f [%.1f, %.1f]", 100*m.Value, 100*m.Low, 100*m.High)
			t.Logf("%s (%s), %s: %s %s, %d of %d cannot be read", x.Name, x.Split, s.System, x.Main, figure, s.Invalid, s.N)
			if !strings.Contains(report, figure) {
				t.Errorf("%s, %s: the report does not have %s", x.Name, s.System, figure)
			}
		}
	}
	if base, tuned := res.Tasks[1].Scores[0], res.Tasks[1].Scores[1]; base.Invalid < 36 || tuned.Invalid > 26 {
		t.Errorf("gad: %d answers of the base and %d of the adapter cannot be read", base.Invalid, tuned.Invalid)
	}
	if len(res.Tasks[0].Published) > 0 {
		t.Error("the papers' figures stand beside 40 rows of their set")
	}
}
