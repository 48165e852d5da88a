package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/model"
)

// formAdapter fits the model of testdata/weights.
func formAdapter(t *testing.T) string {
	return adapter{`, "target_modules": ["q_proj", "model.layers.0.mlp.down_proj", "lm_head"]`, map[string][2]int{
		"model.layers.0.self_attn.q_proj": {16, 16}, "model.layers.1.self_attn.q_proj": {16, 16},
		"model.layers.0.mlp.down_proj": {16, 32}, headName: {20, 16}}, nil}.write(t)
}

// A model merges from each of its forms to the same weights.
func TestMergeForms(t *testing.T) {
	forms := filepath.Join(golden.Root(t), "testdata", "weights")
	ad := formAdapter(t)
	first := filepath.Join(t.TempDir(), "base")
	mustMerge(t, mergeArgs(filepath.Join(forms, "base"), ad, first, "--dtype", "f32")...)
	want := openWeights(t, first)
	for form, c := range map[string]struct {
		dtype string // of the form
		files int
	}{
		"base": {"bfloat16", 1}, "sharded": {"bfloat16", 3}, "zip": {"bfloat16", 1}, "legacy": {"bfloat16", 1}, "sharded-bin": {"bfloat16", 1},
		"strided": {"bfloat16", 1}, "f64": {"bfloat16", 1}, "meta": {"bfloat16", 1}, "meta-2": {"bfloat16", 1}, "mistral": {"bfloat16", 1},
		"gguf-f32": {"float32", 1}, "gguf-f16/tiny-f16.gguf": {"float16", 1},
	} {
		t.Run(form, func(t *testing.T) {
			dir := filepath.Join(forms, form)
			for flag, name := range map[string]string{"": c.dtype, "f32": "float32", "f16": "float16", "bf16": "bfloat16"} {
				out := filepath.Join(t.TempDir(), "out")
				args := mergeArgs(dir, ad, out)
				if flag != "" {
					args = append(args, "--dtype", flag)
				}
				code, stdout, stderr := run(args...)
				if code != cli.Done || stderr != "" && !strings.Contains(stderr, "defaults are taken: max_position_embeddings\n") {
					t.Fatalf("exit code %d: %s", code, stderr)
				}
				if told := strings.Contains(stdout, "the tokenizer of a .gguf file "); told != strings.HasPrefix(form, "gguf") {
					t.Errorf("printed %q", stdout)
				}
				got := openWeights(t, out)
				if !slices.Equal(slices.Sorted(slices.Values(got.Names())), slices.Sorted(slices.Values(want.Names()))) {
					t.Errorf("tensors %q, want %q", got.Names(), want.Names())
				}
				before := openWeights(t, dir)
				for x := range got.All() {
					d := numeric.F32
					switch old, _ := before.Tensor(x.Name); {
					case flag == "":
						d = old.DType
					case flag != "f32":
						d, _ = numeric.Parse(strings.ToUpper(flag))
					}
					module := strings.TrimSuffix(x.Name, ".weight")
					values := matrix(t, want, module)
					if d != numeric.F64 { // which holds them exactly
						values = round(d, values)
					}
					if x.DType != d || !slices.Equal(matrix(t, got, module), values) {
						t.Errorf("--dtype %s: %s is %v, want %v, or has other values", flag, x.Name, x.DType, d)
					}
				}
				cfg, warnings, err := model.ReadConfig(out)
				if err != nil || cfg.TorchDtype != name || len(warnings) > 0 && stderr == "" {
					t.Errorf("--dtype %s: torch_dtype %q, want %q; warnings %q, %v", flag, cfg.TorchDtype, name, warnings, err)
				}
				names := list(t, out)
				if len(names) != c.files+2 || !slices.Contains(names, "config.json") {
					t.Errorf("wrote %q", names)
				}
				m, err := model.Open(out, model.Options{})
				must(t, err)
				must(t, m.Close())
			}
		})
	}
}

// Quantised weights become bfloat16, or what is asked for.
func TestMergeQuantised(t *testing.T) {
	base := t.TempDir()
	must(t, os.CopyFS(base, os.DirFS(filepath.Join(golden.Root(t), "testdata", "weights", "quantised"))))
	ad := adapter{`, "target_modules": ["model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"]`, map[string][2]int{
		"model.layers.0.self_attn.q_proj": {32, 32}, "model.layers.2.mlp.down_proj": {32, 256}}, nil}.write(t)
	before := openWeights(t, base)
	for flag, d := range map[string]numeric.DType{"": numeric.BF16, "f32": numeric.F32, "bf16": numeric.BF16, "f16": numeric.F16} {
		out := filepath.Join(t.TempDir(), "out")
		args := mergeArgs(filepath.Join(base, "tiny.gguf"), ad, out)
		if flag != "" {
			args = append(args, "--dtype", flag)
		}
		stdout := mustMerge(t, args...)
		if !strings.Contains(stdout, "the tokenizer of a .gguf file cannot be copied as a file: put the model's tokenizer files into "+out+"\n") {
			t.Errorf("printed %q", stdout)
		}
		got := openWeights(t, out)
		for x := range got.All() {
			module := strings.TrimSuffix(x.Name, ".weight")
			old, _ := before.Tensor(x.Name)
			want := d
			if flag == "" && old.Type == "F32" { // the norms
				want = numeric.F32
			}
			if x.DType != want {
				t.Errorf("--dtype %s: %s is %v, want %v", flag, x.Name, x.DType, want)
			}
			switch module {
			case "model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj":
				checkClose(t, module, matrix(t, got, module), expect(t, d, matrix(t, before, module), ad, module, x.Shape[1]), d)
			default:
				if !slices.Equal(matrix(t, got, module), round(want, matrix(t, before, module))) {
					t.Errorf("--dtype %s: %s is not rounded to nearest", flag, x.Name)
				}
			}
		}
		cfg, warnings, err := model.ReadConfig(out)
		name := map[numeric.DType]string{numeric.BF16: "bfloat16", numeric.F32: "float32", numeric.F16: "float16"}[d]
		if err != nil || cfg.TorchDtype != name || cfg.Rope.Type != "llama3" || len(warnings) != 0 {
			t.Errorf("--dtype %s: %+v, %q, %v", flag, cfg, warnings, err)
		}
	}
	if names := list(t, base); len(names) != 1 {
		t.Errorf("the base's directory has %q now", names)
	}
	// The whole directory is named: what lies beside the weights belongs to them.
	must(t, os.WriteFile(filepath.Join(base, "tokenizer.json"), []byte("{}"), 0o666))
	out := filepath.Join(t.TempDir(), "out")
	if stdout := mustMerge(t, mergeArgs(base, ad, out)...); strings.Contains(stdout, "tokenizer") || !slices.Contains(list(t, out), "tokenizer.json") {
		t.Errorf("printed %q, wrote %q", stdout, list(t, out))
	}
}
