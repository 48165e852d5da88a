package matrix

import (
	"slices"
	"strings"
	"testing"
)

const good = `
bases:
  - {name: demo, path: model}
data: rows.jsonl
subsets:
  - {name: all}
  - {name: QA, where: category == "QA", count: 3}
seeds: [1, 2]
train: {learning_rate: 1e-3, target_modules: all-linear}
tasks:
  - {task: gad, rows: [a.jsonl, b.jsonl], split: test, shots_from: c.jsonl}
eval: {shots: 1, shots_split: train}
`

func TestParse(t *testing.T) {
	g, err := Parse("grid.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	d := Defaults()
	if g.Train.LearningRate != 1e-3 || g.Train.LoraR != d.Train.LoraR || g.Train.MaxGradNorm != d.Train.MaxGradNorm || g.Eval.BatchSize != d.Eval.BatchSize {
		t.Errorf("what is not said is not the default: %+v", g.Train)
	}
	if g.Bases[0].Template != "alpaca" || !slices.Equal(g.Data, List{"rows.jsonl"}) || len(g.Tasks[0].Rows) != 2 || g.Subsets.List[1].Count != 3 ||
		!slices.Equal(g.Tasks[0].ShotsFrom, List{"c.jsonl"}) || *g.Eval.Shots != 1 || g.Eval.ShotsSplit != "train" {
		t.Errorf("%+v", g)
	}
	if c := g.Train.lora(7); c.TargetModules.String() != "all-linear" || c.Seed != 7 {
		t.Errorf("%+v", c)
	}
	g, err = Parse("grid.yaml", []byte(strings.Replace(good, "all-linear", "[q_proj, v_proj]", 1)))
	if err != nil || g.Train.lora(0).TargetModules.String() != "q_proj,v_proj" {
		t.Error(g, err)
	}
}

func TestWrongGrids(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"seeds: [1, 2]", "seeds: [1, 1]", "1 is there twice"},
		{"seeds: [1, 2]", "seeds: []", "seeds: there is none"},
		{"seeds: [1, 2]", "seed: 1", `unknown field "seed"`},
		{"name: demo", "name: ../demo", `name "../demo"`},
		{"path: model", "template: alpaca", "demo has no path"},
		{"{name: all}", "{name: qa}", "a second subset named QA"},
		{"{name: all}", "{name: all, were: x}", `unknown field "were"`},
		{`category == "QA"`, "categori == 1", "subsets[1]: QA: where: "},
		{"count: 3", "count: -3", "a count of -3"},
		{"learning_rate: 1e-3", "learning_rate: -1", "learning_rate is -1"},
		{"learning_rate: 1e-3", "lr: 1", `unknown field "lr"`},
		{"learning_rate: 1e-3", "lora_r: 0", "r is 0"},
		{"learning_rate: 1e-3", "compute: f16", `compute "f16"`},
		{"learning_rate: 1e-3", "base: int4", `base "int4"`},
		{"split: test", "split: all", `split "all"`},
		{"data: rows.jsonl", "data: &x rows.jsonl", "grid.yaml:4: an anchor"},
		{"task: gad", "task: ''", "which task?"},
		{"shots: 1", "shots: -1", "shots -1: want 0 to 64"},
		{"shots: 1", "shots: 65", "shots 65: want 0 to 64"},
		{"shots_split: train", "shots_split: tran", `shots_split "tran"`},
		{"split: test,", "split: test, shots_split: tset,", `tasks[0]: shots_split "tset"`},
	} {
		text := strings.Replace(good, c.old, c.new, 1)
		if text == good {
			t.Fatalf("%q is not there", c.old)
		}
		if _, err := Parse("grid.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	text := strings.NewReplacer("seeds: [1, 2]", "seeds: []", "path: model", "path: ''", "split: test", "split: x").Replace(good)
	_, err := Parse("grid.yaml", []byte(text))
	for _, want := range []string{"seeds", "no path", `split "x"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not among all problems: %v", want, err)
		}
	}
	for _, bad := range []string{"subsets: all", "subsets: {name: x}", "subsets: 3"} {
		text := good[:strings.Index(good, "subsets")] + bad + good[strings.Index(good, "\nseeds"):]
		if _, err := Parse("grid.yaml", []byte(text)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestStandard(t *testing.T) {
	for _, c := range []struct{ categories, want string }{
		{"GEN IE QA", "all QA IE GEN QA+IE QA+GEN IE+GEN without-QA without-IE without-GEN"},
		{"GEN other", "all GEN without-GEN without-other"},
		{"IE", "all IE"},
		{"other", ""},
	} {
		var names []string
		for _, s := range Standard(strings.Fields(c.categories)) {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.categories, got, c.want)
		}
	}
}
