package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/model/weights"
)

// An adapter that was trained on a quantised base is merged into the checkpoint's weights, which is said, or into the
// values of the codes: then all linears of the layers have these, and nothing else has.
func TestMergeBase(t *testing.T) {
	for _, d := range []numeric.DType{numeric.F32, numeric.F16} {
		dir, ad := base{dtype: d}.write(t), qAdapter().write(t)
		must(t, os.WriteFile(filepath.Join(ad, "run.yaml"), []byte("# a run\nbase: nf4\n"), 0o666))
		best := filepath.Join(ad, "best")
		must(t, os.Mkdir(best, 0o777))
		must(t, os.CopyFS(best, os.DirFS(qAdapter().write(t))))
		const note = "the adapter was trained on the base in nf4: --base nf4 merges it into the values that it was trained against\n"
		for _, from := range []string{ad, best} {
			out := filepath.Join(t.TempDir(), "out")
			if told := mustMerge(t, mergeArgs(dir, from, out)...); !strings.Contains(told, note) {
				t.Errorf("told was %q", told)
			}
			before, after := openWeights(t, dir), openWeights(t, out)
			checkClose(t, qProj, matrix(t, after, qProj), expect(t, d, matrix(t, before, qProj), from, qProj, hidden), d)
		}
		for _, name := range []string{"nf4", "int8"} {
			f, err := quant.Parse(name)
			must(t, err)
			values := openWeights(t, dir)
			var linears []string
			for _, n := range values.Names() {
				if strings.HasSuffix(n, "_proj.weight") {
					linears = append(linears, n)
				}
			}
			must(t, values.Prepare(context.Background(), weights.PrepareOptions{Quant: f, Quantised: linears, Names: linears}))
			out := filepath.Join(t.TempDir(), "out")
			if told := mustMerge(t, mergeArgs(dir, ad, out, "--base", name)...); strings.Contains(told, note) != (name != "nf4") {
				t.Errorf("%s: told was %q", name, told)
			}
			after := openWeights(t, out)
			for x := range values.All() {
				module := strings.TrimSuffix(x.Name, ".weight")
				if module == qProj {
					checkClose(t, module, matrix(t, after, module), expect(t, d, matrix(t, values, module), ad, module, hidden), d)
					continue
				}
				if got, want := matrix(t, after, module), round(d, matrix(t, values, module)); !slices.Equal(got, want) {
					t.Errorf("%s: %s is %v, want %v", name, module, got, want)
				}
				if y, _ := after.Tensor(x.Name); y.DType != d {
					t.Errorf("%s became %v", x.Name, y.DType)
				}
			}
		}
	}
	for text, want := range map[string]string{"": "", "base: none\n": "", "base: nf9\n": "", "base: [nf4]\n": "", "{": "", "base: int8\n": "int8"} {
		ad := t.TempDir()
		must(t, os.WriteFile(filepath.Join(ad, "run.yaml"), []byte(text), 0o666))
		if got := trainedBase(ad); got != want {
			t.Errorf("%q: base %q, want %q", text, got, want)
		}
	}
	if code, _, stderr := run(mergeArgs("m", "a", "o", "--base", "nf5")...); code != cli.Usage || !strings.Contains(stderr, `--base must be one of "none","nf4","int8" but got "nf5"`) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// A file of quantised weights says what it is.
func TestInfoCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weights-1-nf4-2.safetensors")
	must(t, safetensors.WriteFile(path, []safetensors.Source{{Name: "w", DType: numeric.U8, Shape: []int{3}, Data: []byte{1, 2, 3}}},
		map[string]string{"biolora_cache": "00", "biolora_holds": "tensors of model.safetensors, quantised to nf4"}))
	d := described(t, path)
	want := "tensors of model.safetensors, quantised to nf4; lora-train made it, finds it again by itself, and makes it anew where it is missing"
	if d.Kind != kindCache || len(d.Warnings) != 1 || d.Warnings[0] != want {
		t.Errorf("told is %+v", d)
	}
	if text := told(t, path); !strings.HasPrefix(text, "cache         "+path+", safetensors\n") || !strings.Contains(text, "\nnote          "+want+"\n") {
		t.Errorf("told is\n%s", text)
	}
}
