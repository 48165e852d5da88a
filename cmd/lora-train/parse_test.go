package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/train"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func parsed(t *testing.T, args ...string) *Run {
	t.Helper()
	r, err := parse(append([]string{"--model", "m", "--data", "d"}, args...), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDefaultsAreThePackages(t *testing.T) {
	r := parsed(t)
	if diff := cmp.Diff(lora.Defaults().TargetModules, r.TargetModules); diff != "" {
		t.Error(diff)
	}
	c := r.lora()
	c.Seed = lora.Defaults().Seed
	if diff := cmp.Diff(lora.Defaults(), c); diff != "" {
		t.Errorf("LoRA: %s", diff)
	}
	if diff := cmp.Diff(train.Defaults(), r.options()); diff != "" {
		t.Errorf("training: %s", diff)
	}
}

func TestPrecedence(t *testing.T) {
	config := writeFile(t, "run.yaml", "preset: alpaca-lora\nlora_r: 4\nlora_alpha: 5\ndata: [x, y]\n")
	r, err := parse([]string{"--config", config, "--model", "m", "--lora-alpha", "6"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if r.LoraAlpha != 6 {
		t.Errorf("alpha is %v, the flag says 6", r.LoraAlpha)
	}
	if r.LoraR != 4 {
		t.Errorf("r is %v, the file says 4", r.LoraR)
	}
	if r.LoraDropout != 0.05 {
		t.Errorf("dropout is %v, the preset says 0.05", r.LoraDropout)
	}
	if r.LearningRate != train.Defaults().LearningRate {
		t.Errorf("the learning rate is %v, not the default", r.LearningRate)
	}
	if diff := cmp.Diff([]string{"x", "y"}, r.Data); diff != "" {
		t.Error(diff)
	}
	if want := (map[string]bool{"preset": true, "lora_r": true, "lora_alpha": true, "data": true, "model": true, "config": true}); !cmp.Equal(want, r.Given) {
		t.Errorf("given: %v, want %v", r.Given, want)
	}
	r, err = parse([]string{"--config", config, "--model", "m", "--preset", "bioinstruct"}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Preset != "bioinstruct" || r.NumTrainEpochs != 5 || r.Accumulation != 16 {
		t.Errorf("the preset of the flags does not win: %q, %v epochs, accumulation %d", r.Preset, r.NumTrainEpochs, r.Accumulation)
	}
}

func TestFlagForms(t *testing.T) {
	r := parsed(t, "--target-modules", "q_proj,mlp.down_proj", "--exclude-modules", `regex:.*\.0\..*`,
		"--rank-pattern", "q_proj=4", "--rank-pattern", `layers\.(?=1)x=8`, "--alpha-pattern", "v_proj=2.5",
		"--modules-to-save", "embed_tokens,lm_head", "--layers-to-transform", "0,2", "--data", "e,f",
		"--empty-input", "keine, danke", "--empty-input", "-", "--init-lora-weights", "gaussian", "--max-steps", "-1",
		"--use-rslora", "--no-shuffle", "--train-on-inputs=false", "--seed", "18446744073709551615")
	want := Settings{
		TargetModules:     lora.Names{List: []string{"q_proj", "mlp.down_proj"}},
		ExcludeModules:    lora.Names{Expr: `.*\.0\..*`},
		RankPattern:       lora.Rules{{Key: "q_proj", Value: 4}, {Key: `layers\.(?=1)x`, Value: 8}},
		AlphaPattern:      lora.Rules{{Key: "v_proj", Value: 2.5}},
		ModulesToSave:     []string{"embed_tokens", "lm_head"},
		LayersToTransform: []int{0, 2},
		Data:              []string{"d", "e,f"},
		InitLoraWeights:   "gaussian",
		UseRslora:         true,
		NoShuffle:         true,
		Seed:              1<<64 - 1,
	}
	got := reflect.ValueOf(r.Settings)
	for i, w := 0, reflect.ValueOf(want); i < w.NumField(); i++ {
		if w.Field(i).IsZero() {
			continue
		}
		if diff := cmp.Diff(w.Field(i).Interface(), got.Field(i).Interface()); diff != "" {
			t.Errorf("%s: %s", w.Type().Field(i).Name, diff)
		}
	}
	if diff := cmp.Diff([]string{"keine, danke", "-"}, r.EmptyInput); diff != "" {
		t.Error(diff)
	}
	if r.MaxSteps != 0 {
		t.Errorf("--max-steps -1 is %d, want none", r.MaxSteps)
	}
	if got := parsed(t, "--target-modules", "all-linear").TargetModules; got.Expr != lora.AllLinear {
		t.Errorf("all-linear is %+v", got)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--learing-rate 1", []string{"unknown flag --learing-rate", "--learning-rate"}},
		{"--per-device-train-batch-size many", []string{"--per-device-train-batch-size", `"many"`, "auto"}},
		{"--per-device-train-batch-size -2", []string{"--per-device-train-batch-size", "-2 is negative"}},
		{"--lora-r x", []string{"--lora-r", `"x"`}},
		{"--lora-r 2.5", []string{"--lora-r", `"2.5"`}},
		{"--lora-r -3", []string{"--lora-r", "-3"}},
		{"--learning-rate nan", []string{"--learning-rate", "NaN"}},
		{"--learning-rate 0", []string{"--learning-rate is 0; it must be above 0"}},
		{"--weight-decay inf --adam-beta1 -1", []string{"--weight-decay", "Inf", "--adam-beta1", "-1"}},
		{"--compute fp16", []string{"--compute", `"fp16"`, "auto, f32, bf16"}},
		{"--device cuda:x", []string{"--device", `"cuda:x"`, "cuda:N"}},
		{"--device gpu", []string{"--device", `"gpu"`, "auto, cpu"}},
		{"--lr-scheduler-type cosin", []string{"did you mean cosine?"}},
		{"--activation-policy some", []string{"auto, none, all"}},
		{"--init-lora-weights pissa", []string{"true", "gaussian"}},
		{"--preset bioinstrukt", []string{"did you mean bioinstruct?"}},
		{"--rank-pattern q_proj", []string{"KEY=VALUE"}},
		{"--rank-pattern q_proj=1 --rank-pattern q_proj=2", []string{`"q_proj" is given twice`}},
		{"--rank-pattern q_proj=1.5", []string{"rank_pattern", "1.5"}},
		{"--target-modules regex:(", []string{"target_modules"}},
		{"--target-modules ,", []string{"names no module"}},
		{"--lora-r 0", []string{"r is 0"}},
		{"--lora-dropout 1", []string{"lora_dropout is 1"}},
		{"extra", []string{"unexpected argument extra"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			_, err := parse(append([]string{"--model", "m", "--data", "d"}, strings.Fields(c.args)...), &bytes.Buffer{})
			if !errors.As(err, new(usageError)) {
				t.Fatalf("got %v, want a usage error", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the message lacks %q: %v", w, err)
				}
			}
		})
	}
}

func TestWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string
	}{
		{"--model m", []string{"--data is missing"}},
		{"--data d", []string{"--model is missing"}},
		{"--lora-r 8", []string{"--model is missing", "--data is missing"}},
		{"--preset medtuned", []string{"--model is missing", "--data is missing"}},
	} {
		_, err := parse(strings.Fields(c.args), &bytes.Buffer{})
		if !errors.As(err, new(usageError)) {
			t.Fatalf("%s: got %v, want a usage error", c.args, err)
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: the message lacks %q: %v", c.args, w, err)
			}
		}
	}
	for _, args := range []string{"", "--out x --overwrite --threads 1 --compute f32 --device cpu"} {
		r, err := parse(strings.Fields(args), &bytes.Buffer{})
		if err != nil || !r.Demo {
			t.Errorf("%q is not the demo: %v", args, err)
		}
	}
}

func TestHelpHasAllFlagsAndDefaults(t *testing.T) {
	var out bytes.Buffer
	if _, err := parse([]string{"--help"}, &out); !errors.Is(err, errHelp) {
		t.Fatalf("got %v", err)
	}
	for _, f := range new(Settings).settings() {
		if !strings.Contains(out.String(), "--"+f.flag) {
			t.Errorf("the help lacks --%s", f.flag)
		}
	}
	flat := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"Rank. Default: 16.", "alpha / r. Default: 32.", "Default: 0.0003.", "Default: q_proj,v_proj.", "Default: alpaca.",
		"Examples: lora-train --model Llama-2-7b-hf --data bioinstruct.json --out adapter lora-train --preset"} {
		if !strings.Contains(flat, want) {
			t.Errorf("the help lacks %q", want)
		}
	}
}

// Help that cannot be written is a failure, not wrong usage.
func TestHelpIsWritten(t *testing.T) {
	full, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	full.Close()
	w.Close()
	var stderr bytes.Buffer
	if code := command(t.Context(), []string{"--help"}, w, &stderr); code != exitFailed || !strings.HasPrefix(stderr.String(), "lora-train: standard output: ") {
		t.Errorf("exit status %d, %q", code, stderr.String())
	}
}

// Flags that are promised, letter for letter.
func TestFlagNames(t *testing.T) {
	want := strings.Fields(`--learning-rate --per-device-train-batch-size --gradient-accumulation-steps --num-train-epochs
		--max-steps --warmup-steps --warmup-ratio --lr-scheduler-type --weight-decay --adam-beta1 --adam-beta2
		--adam-epsilon --max-grad-norm --seed --max-seq-length --lora-r --lora-alpha --lora-dropout --use-rslora
		--target-modules --exclude-modules --rank-pattern --alpha-pattern --init-lora-weights --modules-to-save
		--layers-to-transform --adapter --eval-steps --val-set-size --load-best-model-at-end --train-on-inputs
		--template --empty-input --skip-bad-rows --no-shuffle --compute --device --threads --overwrite --config
		--model --data --out --preset --activation-policy --field-instruction
		--share-prefixes --no-share-prefixes --group-by-prefix`)
	for _, flag := range want {
		if _, ok := new(Settings).find(strings.ReplaceAll(strings.TrimPrefix(flag, "--"), "-", "_")); !ok {
			t.Errorf("%s is missing", flag)
		}
	}
}

func TestSuggestion(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"learning_rte", "learning_rate"}, {"learning-rate", "learning_rate"}, {"Learning_Rate", "learning_rate"},
		{"laerning_rate", "learning_rate"}, {"batch_size", "per_device_train_batch_size"}, {"lora_rank", "lora_r"},
		{"epochs", "num_train_epochs"}, {"zzzzzz", ""}, {"", ""},
	} {
		got := cli.Suggestion(c.word, keys())
		want := ""
		if c.want != "" {
			want = ", did you mean " + c.want + "?"
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", c.word, got, want)
		}
	}
}

func TestPresets(t *testing.T) {
	standings := map[Standing]bool{Published: true, Inferred: true, Ours: true}
	for _, p := range presets() {
		own := defaults()
		p.apply(&own)
		listed := map[string]bool{}
		for _, v := range p.Values {
			if _, ok := own.find(v.Key); !ok {
				t.Errorf("%s: %s is no setting", p.Name, v.Key)
			}
			if listed[v.Key] || !standings[v.Standing] || v.Why == "" {
				t.Errorf("%s: %s is listed twice or without a standing", p.Name, v.Key)
			}
			if (v.Standing == Ours) != (v.Set == nil) {
				t.Errorf("%s: %s is %s, and values of our own are the defaults", p.Name, v.Key, v.Standing)
			}
			listed[v.Key] = true
		}
		d := defaults()
		for _, f := range own.settings() {
			if was, _ := d.find(f.key()); !sameValue(was, f) && !listed[f.key()] {
				t.Errorf("%s changes %s and does not list it", p.Name, f.key())
			}
		}
		if err := own.validate(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

// What the papers do not say must not be shown as theirs.
func TestPresetsClaimNoMoreThanThePapers(t *testing.T) {
	published := map[string][]string{
		"bioinstruct": nil,
		"medtuned":    {"num_train_epochs", "warmup_steps", "seed", "template", "train_on_inputs"},
	}
	for name, want := range published {
		p, err := findPreset(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range p.Values {
			if v.Standing == Published {
				got = append(got, v.Key)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestPresetIsPrintedWithWhatReplacesIt(t *testing.T) {
	r := parsed(t, "--preset", "bioinstruct", "--learning-rate", "1e-3")
	var out bytes.Buffer
	if err := r.printPreset(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"preset bioinstruct", "Tran", "num_train_epochs", "inferred", "975", "[this run: 0.001]", "ours"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the preset's print lacks %q:\n%s", want, &out)
		}
	}
	if strings.Count(out.String(), "this run") != 1 {
		t.Errorf("more than the learning rate is marked as replaced:\n%s", &out)
	}
}

func TestContradictions(t *testing.T) {
	modules := lora.Decoder([]lora.Module{
		{Name: "model.layers.0.self_attn.q_proj", In: 8, Out: 8}, {Name: "model.layers.0.self_attn.v_proj", In: 8, Out: 8},
	}, 16, 8)
	c := lora.Defaults()
	c.R, c.TargetModules = 8, lora.Names{List: []string{"v_proj", "q_proj"}}
	for _, same := range []string{
		"--target-modules q_proj,v_proj --lora-dropout 0.1 --lora-alpha 32", "--target-modules all-linear",
		`--target-modules regex:.*\.[qv]_proj`, "--preset alpaca-lora",
	} {
		if err := parsed(t, append(strings.Fields(same), "--adapter", "a")...).contradictions(c, modules); err != nil {
			t.Errorf("%s contradicts nothing, got %v", same, err)
		}
	}
	r := parsed(t, "--adapter", "dir", "--lora-r", "16", "--use-rslora", "--target-modules", "q_proj", "--init-lora-weights", "gaussian",
		"--modules-to-save", "lm_head", "--rank-pattern", "q_proj=2", "--layers-to-transform", "1")
	err := r.contradictions(c, modules)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"--lora-r (lora_r) is 16", "dir has 8", "--use-rslora", "q_proj, but", "v_proj,q_proj",
		"gaussian", "--modules-to-save", "--rank-pattern", "--layers-to-transform"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, err)
		}
	}
}
