package study

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/matrix"
	"github.com/biolora/biolora/internal/mix"
	"github.com/biolora/biolora/internal/rows"
)

// brought are the files that a user brings, and the made-up samples that stand for them here; or the file's text, with
// what is replaced so that ids of several files differ.
var brought = map[string]struct{ sample, old, new string }{
	"medqa-train.jsonl":          {sample: "medqa-train.jsonl"},
	"medqa-test.jsonl":           {sample: "medqa-listed-test.json"},
	"ori_pqal.json":              {sample: "pubmedqa-made-up.json"},
	"test_ground_truth.json":     {sample: "pubmedqa-ground_truth.json"},
	"medmcqa-train.json":         {sample: "medmcqa-copy-train.jsonl"},
	"medmcqa-dev.json":           {"medmcqa-dev.json", `"id": "`, `"id": "dev`},
	"bioasq-training.json":       {sample: "bioasq-training.json"},
	"bioasq-golden.json":         {"bioasq-training.json", `"id": "`, `"id": "golden`},
	"mli_train_v1.jsonl":         {"mli_dev_made_up.jsonl", `"pairID": "`, `"pairID": "train`},
	"mli_dev_v1.jsonl":           {sample: "mli_dev_made_up.jsonl"},
	"mli_test_v1.jsonl":          {"mli_dev_made_up.jsonl", `"pairID": "`, `"pairID": "test`},
	"medication-dev.csv":         {sample: "medication-status-test.csv"},
	"medication-test.csv":        {sample: "medication-status-test.csv"},
	"coreference-dev.csv":        {sample: "coreference-test.csv"},
	"coreference-test.csv":       {sample: "coreference-test.csv"},
	"mts-train.csv":              {sample: "mts-dialog-valid.csv"},
	"mts-test.csv":               {sample: "mts-dialog-valid.csv"},
	"iCliniq.json":               {sample: "icliniq-test.json"},
	"HealthCareMagic-100k.json":  {sample: "chatdoctor-made-up.json"},
	"NCBI-disease-IOB.devel.tsv": {sample: "ncbi-disease-train.tsv"},
}

// papersPlace is a workplace with the files that the papers' sections name. The demo model stands for LLaMA.
func papersPlace(t *testing.T, model string) *workplace {
	t.Helper()
	if testing.Short() {
		t.Skip("builds three commands and trains many times, and -short is set")
	}
	w := newWorkplace(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // of quantised weights
	if err := os.CopyFS(filepath.Join(w.dir, model), os.DirFS(filepath.Join(w.dir, "testdata", "demo", "model"))); err != nil {
		t.Fatal(err)
	}
	root := golden.Root(t)
	for name, b := range brought {
		text, err := os.ReadFile(filepath.Join(root, "internal", "medtuned", "testdata", "samples", b.sample))
		if err != nil {
			t.Fatal(err)
		}
		w.put(name, strings.ReplaceAll(string(text), b.old, b.new))
	}
	return w
}

func (w *workplace) put(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o666); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workplace) get(name string) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// shorten makes a file say what takes a moment only. Each of the texts must be there.
func (w *workplace) shorten(name string, pairs ...string) {
	w.t.Helper()
	text := w.get(name)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			w.t.Fatalf("%s has no %q", name, pairs[i])
		}
	}
	w.put(name, strings.NewReplacer(pairs...).Replace(text))
}

// endpoint answers what lora-data classify asks, and a judge's questions.
func endpoint(t *testing.T) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Messages []struct{ Content string } }
		if json.NewDecoder(r.Body).Decode(&q) != nil || len(q.Messages) == 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		asked := q.Messages[len(q.Messages)-1].Content
		text := "Reason: it is a test\nMark: 3"
		if strings.HasPrefix(asked, "Say of each task") {
			text = ""
			for k := range strings.Count(asked, "\nTask ") {
				text += fmt.Sprintf("%d: %s\n", k+1, []string{"QA", "IE", "GEN", "other"}[k%4])
			}
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"model": "m", "choices": []any{map[string]any{"finish_reason": "stop", "message": map[string]any{"content": text}}},
			"usage": map[string]any{"prompt_tokens": 100, "completion_tokens": 10},
		})
	}))
	t.Cleanup(s.Close)
	t.Setenv("OPENAI_BASE_URL", s.URL)
	t.Setenv("OPENAI_API_KEY", "sk-of-the-test")
}

// carryOutShortly does what a line says, in a step and a few tokens.
func (w *workplace) carryOutShortly(line string) {
	w.t.Helper()
	switch {
	case strings.HasPrefix(line, "lora-train "):
		line += " --max-steps 1"
	case strings.HasPrefix(line, "lora-eval run "):
		line = strings.Replace(line, " --max-new-tokens 512", "", 1) + " --max-new-tokens 4"
	}
	w.carryOut(line)
}

// study reads what a grid of the sections came to.
func (w *workplace) study(dir string) (res matrix.Results) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.get(filepath.Join(dir, matrix.ResultsFile))), &res); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range res.Cells {
		if c.Error != "" || c.Rows == 0 || len(c.Scores) != len(res.Bases[0].Scores) {
			w.t.Errorf("%s: %+v", dir, c)
		}
	}
	return res
}

// The commands of the section on BioInstruct do their work, from rows without categories to the study of nine tasks.
func TestBioInstruct(t *testing.T) {
	w := papersPlace(t, "Llama-2-7b-hf")
	endpoint(t)
	w.put("bioinstruct.json", w.rowsOf(filepath.Join(golden.Root(t), "testdata", "demo", "data", "train.json"), 64))
	w.shorten("testdata/study/bioinstruct.yaml", "num_train_epochs: 5", "max_steps: 1", "max_new_tokens: 512", "max_new_tokens: 2", "limit: 1000", "limit: 6",
		"split: test}", "split: test, limit: 6}", "split: dev}", "split: dev, limit: 6}", "gradient_accumulation_steps: 16", "gradient_accumulation_steps: 1")
	for _, line := range commands(t, "### In the way of BioInstruct", "lora-data classify", "lora-data mix", "lora-train", "lora-data convert", "lora-eval run", "lora-eval matrix") {
		w.carryOutShortly(line)
	}
	var res eval.Results
	if err := json.Unmarshal([]byte(w.get("eval-qa/"+eval.ResultsFile)), &res); err != nil {
		t.Fatal(err)
	}
	if len(res.Tasks) != 2 || res.Tasks[0].Shots != 1 || len(res.Tasks[0].Scores) != 2 {
		t.Errorf("%+v", res.Tasks)
	}
	if !strings.Contains(w.get("eval-icliniq/"+eval.ReportFile), "published: BioInstruct, GEN") {
		t.Error("the report of iCliniq has no figure of the paper's")
	}
	study := w.study("study-bioinstruct")
	var subsets, columns []string
	for _, s := range study.Subsets {
		subsets = append(subsets, s.Name)
	}
	for _, c := range study.Columns {
		if c.Kind == "category" {
			columns = append(columns, fmt.Sprintf("%s %d %s", c.Name, len(c.Tasks), c.Metric))
		}
	}
	if got := strings.Join(subsets, " "); got != "all QA IE GEN QA+IE QA+GEN IE+GEN without-QA without-IE without-GEN without-other" {
		t.Errorf("subsets %s", got)
	}
	if got := strings.Join(columns, ", "); got != "QA 4 accuracy, IE 3 accuracy, micro_f1, rouge1, GEN 2 judge" {
		t.Errorf("categories %s", got)
	}
	for _, s := range study.Bases[0].Scores {
		if s.Shots != 1 || s.N != 6 {
			t.Errorf("%+v", s)
		}
	}
}

// rowsOf are the first rows of a file, as a JSON array.
func (w *workplace) rowsOf(file string, n int) string {
	w.t.Helper()
	var list []json.RawMessage
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	text, err = json.Marshal(list[:n])
	if err != nil {
		w.t.Fatal(err)
	}
	return string(text)
}

// The commands of the section on Llama2-MedTuned do their work: the recipe takes its 200,252 rows, and the study of its
// composition trains on what its conditions say. What is trained on here is one row in a thousand.
func TestMedTuned(t *testing.T) {
	w := papersPlace(t, "Llama-2-7b-chat-hf")
	const step = 1000
	w.shorten("testdata/study/medtuned.yaml", "num_train_epochs: 3, warmup_steps: 1000", "max_steps: 1, per_device_train_batch_size: 1, gradient_accumulation_steps: 1",
		"max_new_tokens: 512", "max_new_tokens: 2", "split: dev}", "split: dev, limit: 4}")
	recipe, err := mix.Open("medtuned")
	if err != nil {
		t.Fatal(err)
	}
	lines := commands(t, "### In the way of Llama2-MedTuned", "lora-data mix", "lora-train", "lora-eval run", "lora-eval matrix")
	for _, line := range lines {
		if strings.HasPrefix(line, "lora-data mix ") {
			for _, s := range recipe.Sources {
				_, file, _ := strings.Cut(line, "--source "+s.Name+"=")
				file, _, _ = strings.Cut(file, " ")
				w.madeUp(file, s.Name, s.Count)
			}
		}
		w.carryOutShortly(line)
		if strings.HasPrefix(line, "lora-data mix ") {
			if n := w.thin("medtuned.jsonl", step); n != 200_252 {
				t.Fatalf("the recipe takes %d rows", n)
			}
		}
	}
	if report := w.get("eval-ncbi/" + eval.ReportFile); !strings.Contains(report, "full fine-tuning; a LoRA run is an adaptation of it") || !strings.Contains(report, "4 beam(s)") {
		t.Error("the report does not have beams and the paper's figures")
	}
	matched := map[string]int{}
	for _, s := range w.study("study-medtuned").Subsets {
		matched[s.Name] = s.Rows
	}
	if all := matched["all"]; all != 201 || matched["entities"] >= all/3 || matched["no-answers"] >= all || matched["no-clinical"] >= all || matched["entities"] == 0 {
		t.Errorf("%v", matched)
	}
}

// madeUp writes rows of a source.
func (w *workplace) madeUp(file, source string, n int) {
	w.t.Helper()
	_, err := rows.Write(filepath.Join(w.dir, file), func(yield func(rows.Row, error) bool) {
		for i := range n {
			r := rows.Row{Instruction: "Name the drug.", Input: fmt.Sprintf("%s %d", source, i), Output: "aspirin", Task: source, Source: source, Split: "train", ID: fmt.Sprintf("%s/%d", source, i)}
			if !yield(r, nil) {
				return
			}
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// thin leaves every so many-th row of a file, and says how many there were.
func (w *workplace) thin(file string, step int) int {
	w.t.Helper()
	lines := strings.SplitAfter(strings.TrimSuffix(w.get(file), "\n"), "\n")
	var kept strings.Builder
	for i := 0; i < len(lines); i += step {
		kept.WriteString(strings.TrimSuffix(lines[i], "\n") + "\n")
	}
	w.put(file, kept.String())
	return len(lines)
}
