// Package golden reads the reference cases that tests compare with: checkpoints, rows and what PyTorch,
// Transformers and PEFT made of them. It is imported by tests only. The format is told in
// testdata/golden/README.md.
package golden

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/biolora/biolora/internal/safetensors"
)

// Case is one reference case.
type Case struct {
	Dir   string
	Name  string
	Later bool
	Lora  json.RawMessage
	Train struct {
		PerDeviceTrainBatchSize   int     `json:"per_device_train_batch_size"`
		GradientAccumulationSteps int     `json:"gradient_accumulation_steps"`
		MaxSteps                  int     `json:"max_steps"`
		LearningRate              float64 `json:"learning_rate"`
		LRSchedulerType           string  `json:"lr_scheduler_type"`
		WarmupSteps               int     `json:"warmup_steps"`
		WarmupRatio               float64 `json:"warmup_ratio"`
		AdamBeta1                 float64 `json:"adam_beta1"`
		AdamBeta2                 float64 `json:"adam_beta2"`
		AdamEpsilon               float64 `json:"adam_epsilon"`
		WeightDecay               float64 `json:"weight_decay"`
		MaxGradNorm               float64 `json:"max_grad_norm"`
		Optimizer                 string  `json:"optimizer"`
	}
	Expected struct {
		FirstBatchLoss float64   `json:"first_batch_loss"`
		Losses         []float64 `json:"losses"`
		GradNorms      []float64 `json:"grad_norms"`
		LRs            []float64 `json:"lrs"`
		LabelTokens    []int     `json:"label_tokens"`
		EvalBefore     *float64  `json:"eval_loss_before"`
		EvalAfter      *float64  `json:"eval_loss_after"`
	}
	LogitsRows []int     `json:"logits_rows"`
	Steps      [][][]int // of optimiser steps, micro-batches, rows

	Rows []Row `json:"-"`
}

// Row is one tokenised sample; labels are aligned with the ids, -100 is masked.
type Row struct {
	InputIDs []int32 `json:"input_ids"`
	Labels   []int32 `json:"labels"`
}

// Root returns the root of the repository, found from the test's working directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// Shared returns a path below the folder shared, which lies beside the repository on the developers' machines, and
// skips the test where it is absent.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{Root(t), "..", "shared"}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs ../shared/%s, which is not beside this checkout", filepath.Join(elem...))
	}
	return path
}

// All returns the cases below dir that are not for later; none is an error.
func All(t testing.TB, dir string) (cs []*Case) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "case.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no cases (%v)", dir, err)
	}
	for _, f := range files {
		if c := Read(t, filepath.Dir(f)); !c.Later {
			cs = append(cs, c)
		}
	}
	return cs
}

// Own returns the cases of testdata/golden.
func Own(t testing.TB) []*Case {
	t.Helper()
	return All(t, filepath.Join(Root(t), "testdata", "golden"))
}

// Read reads the case in dir.
func Read(t testing.TB, dir string) *Case {
	t.Helper()
	c := &Case{Dir: dir}
	data, err := os.ReadFile(filepath.Join(dir, "case.json"))
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	c.Rows = Rows(t, c.Path("rows.jsonl"))
	return c
}

// Path is a path inside the case.
func (c *Case) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Rows reads tokenised rows.
func Rows(t testing.TB, path string) (rows []Row) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	for s.Scan() {
		var r Row
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatalf("%s:%d: %v", path, len(rows)+1, err)
		}
		rows = append(rows, r)
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return rows
}

// Tensors reads all float32 tensors of a safetensors file.
func Tensors(t testing.TB, path string) map[string][]float32 {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]float32{}
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		v := make([]float32, len(x.Data)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(x.Data[4*i:]))
		}
		out[name] = v
	}
	return out
}

// MaxAbs is the largest absolute difference.
func MaxAbs(a, b []float32) (worst float64) {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	for i := range a {
		if d := math.Abs(float64(a[i]) - float64(b[i])); !(d <= worst) {
			worst = d
		}
	}
	return worst
}

// RelNorm is the 2-norm of a-b over that of b.
func RelNorm(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		x := float64(a[i]) - float64(b[i])
		d += x * x
		n += float64(b[i]) * float64(b[i])
	}
	if n == 0 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / n)
}

// Rel is the relative difference of two numbers.
func Rel(a, b float64) float64 {
	if a == b {
		return 0
	}
	return math.Abs(a-b) / max(math.Abs(b), 1e-30)
}
