// Package demo embeds what lora-train runs without arguments: a tiny LLaMA, biomedical instructions to teach it, and
// the settings of that run. The model was trained from scratch on text made for this project by
// testdata/reference/make_demo.py; it knows a small lexicon, can copy and look up, and has never seen an answer in
// the form that the instructions teach. Nothing in it is medical advice.
package demo

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/biolora/biolora/internal/atomicfile"
)

//go:embed model data run.yaml
var files embed.FS

// Names in FS, and below the directory given to Write.
const (
	Model   = "model"             // checkpoint directory in Hugging Face's format
	Train   = "data/train.json"   // rows to train on, in BioInstruct's fields
	Holdout = "data/holdout.json" // rows about parts of the lexicon that no row of Train asks about
	Config  = "run.yaml"          // the run's settings, as lora-train --config reads them
)

// Row is one instruction in BioInstruct's fields; Input may be empty.
type Row struct {
	Instruction string `json:"instruction"`
	Input       string `json:"input"`
	Output      string `json:"output"`
}

// Example is a row of Holdout that shows what training changes: before it the model goes on with other text, after
// it the answer is Output. No row of Train names its drug.
var Example = Row{
	Instruction: "Summarize the note in one sentence.",
	Input: "She was diagnosed with asthma. She takes budesonide 30 mg once a week. " +
		"Follow-up is planned in two weeks.",
	Output: "Patient with asthma on budesonide 30 mg.",
}

// FS returns the embedded files.
func FS() fs.FS { return files }

// Write puts the files below dir, which is made if it is absent, and returns the paths of the model's directory and of
// the training rows. A file that is there with the right contents is left alone; any other is replaced whole by a
// rename, so that several processes may share dir and weights already mapped stay what they are.
func Write(dir string) (modelDir, dataFile string, err error) {
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(path, 0o777)
		}
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			return nil
		}
		return atomicfile.Write(path, func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
	})
	if err != nil {
		return "", "", fmt.Errorf("writing the demo's files to %s: %w", dir, err)
	}
	return filepath.Join(dir, Model), filepath.Join(dir, filepath.FromSlash(Train)), nil
}
