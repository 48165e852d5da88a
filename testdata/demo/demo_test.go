package demo

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// embedded returns the names of all embedded files.
func embedded(t *testing.T) (names []string) {
	t.Helper()
	err := fs.WalkDir(FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fs.ReadFile(FS(), name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func rows(t *testing.T, name string) (list []Row) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(read(t, name)))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return list
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "demo")
	modelDir, dataFile, err := Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	if modelDir != filepath.Join(dir, "model") || dataFile != filepath.Join(dir, "data", "train.json") {
		t.Errorf("Write gave %s and %s", modelDir, dataFile)
	}
	for _, name := range embedded(t) {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, read(t, name)) {
			t.Errorf("%s: %d bytes written differ from the %d embedded", name, len(got), len(read(t, name)))
		}
	}
}

func TestWriteAgain(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := Write(dir); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, Model, "model.safetensors")
	config := filepath.Join(dir, Model, "config.json")
	before, err := os.Stat(weights)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte("cut sho"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Write(dir); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(weights)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Error("the weights were right and have been written again")
	}
	if got, err := os.ReadFile(config); err != nil || !bytes.Equal(got, read(t, "model/config.json")) {
		t.Errorf("config.json was damaged and is not repaired: %q, %v", got, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, Model, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}

func TestWriteError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, _, err := Write(file)
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Write to a file: %v; want an error that names it", err)
	}
}

func TestSize(t *testing.T) {
	total := 0
	for _, name := range embedded(t) {
		total += len(read(t, name))
	}
	if total > 4<<20 {
		t.Errorf("the demo has %d bytes; want at most %d, for every clone and binary carries it", total, 4<<20)
	}
}

func TestRows(t *testing.T) {
	train, held := rows(t, Train), rows(t, Holdout)
	if len(train) < 400 || len(held) < 40 {
		t.Fatalf("%d rows to train on, %d held out", len(train), len(held))
	}
	asked := map[Row]bool{}
	for i, r := range slices.Concat(train, held) {
		if strings.TrimSpace(r.Instruction) == "" || strings.TrimSpace(r.Output) == "" {
			t.Errorf("row %d has an empty field: %+v", i, r)
		}
		question := Row{Instruction: r.Instruction, Input: r.Input}
		if asked[question] {
			t.Errorf("row %d is asked twice: %+v", i, question)
		}
		asked[question] = true
	}
	if !slices.Contains(held, Example) {
		t.Errorf("%+v is not a held-out row", Example)
	}
	if drug := "budesonide"; !strings.Contains(Example.Output, drug) || bytes.Contains(read(t, Train), []byte(drug)) {
		t.Errorf("%s names %q, which Example says it does not", Train, drug)
	}
}

func TestModel(t *testing.T) {
	var config struct {
		Architectures []string
		VocabSize     int `json:"vocab_size"`
		HiddenSize    int `json:"hidden_size"`
	}
	if err := json.Unmarshal(read(t, "model/config.json"), &config); err != nil {
		t.Fatal(err)
	}
	modelDir, _, err := Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Open(filepath.Join(modelDir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	embed, ok := f.Tensor("model.embed_tokens.weight")
	if want := []int{config.VocabSize, config.HiddenSize}; !ok || !slices.Equal(embed.Shape, want) {
		t.Errorf("model.embed_tokens.weight has shape %v; want %v", embed.Shape, want)
	}
	for x := range f.All() {
		if x.DType != numeric.BF16 {
			t.Errorf("%s is %v; want %v", x.Name, x.DType, numeric.BF16)
		}
	}
	var tokenizer struct {
		Model struct{ Vocab map[string]int }
	}
	if err := json.Unmarshal(read(t, "model/tokenizer.json"), &tokenizer); err != nil {
		t.Fatal(err)
	}
	if n := len(tokenizer.Model.Vocab); n != config.VocabSize {
		t.Errorf("the tokenizer has %d tokens, the model %d", n, config.VocabSize)
	}
}
