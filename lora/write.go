package lora

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/safetensors"
)

// Write makes a PEFT directory at dir: adapter_config.json, adapter_model.safetensors in F32 and a README.md. All are
// written beside their places first, read back and compared bit for bit, and only then take their names, so that
// whatever goes wrong, a full disk among it, leaves an older adapter as it was. A README.md that somebody else wrote
// stays.
func (s *Saved) Write(dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("saving the adapter in %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".adapter-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := s.writeFiles(tmp); err != nil {
		return err
	}
	back, err := Read(tmp)
	if err != nil {
		return fmt.Errorf("reading it back: %w", err)
	}
	if err := s.compare(back); err != nil {
		return fmt.Errorf("it was not written as it is: %w", err)
	}
	files := []string{WeightsFile, ConfigFile}
	if ownCard(filepath.Join(dir, cardFile)) {
		files = append(files, cardFile)
	}
	for _, name := range files {
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Saved) writeFiles(dir string) error {
	text, err := s.Config.text()
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{ConfigFile: text, cardFile: s.card()} {
		write := func(w io.Writer) error { _, err := w.Write(data); return err }
		if err := atomicfile.Write(filepath.Join(dir, name), write); err != nil {
			return err
		}
	}
	return safetensors.WriteFile(filepath.Join(dir, WeightsFile), s.sources(), map[string]string{"format": "pt"})
}

// sources lists the tensors sorted by name, as PEFT writes them.
func (s *Saved) sources() []safetensors.Source {
	var out []safetensors.Source
	add := func(key string, rows, cols int, data []float32) {
		write := func(w io.Writer) error { return writeFloats(w, data) }
		out = append(out, safetensors.Source{Name: key, DType: numeric.F32, Shape: []int{rows, cols}, Write: write})
	}
	for name, l := range s.Modules {
		add(keyOf(name, partA), l.R, l.In, l.A)
		add(keyOf(name, partB), l.Out, l.R, l.B)
	}
	for name, f := range s.Full {
		add(keyOf(name, partWhole), f.Rows, f.Cols, f.Data)
	}
	slices.SortFunc(out, func(a, b safetensors.Source) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return out
}

// writeFloats writes little-endian float32 through a small buffer.
func writeFloats(w io.Writer, data []float32) error {
	buf := make([]byte, 0, 1<<14)
	for i, v := range data {
		buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		if len(buf) == cap(buf) || i == len(data)-1 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	return nil
}

// compare requires that t is s, bit for bit. Ranks and scales are what t's configuration says.
func (s *Saved) compare(t *Saved) error {
	p := &problems{}
	for name, l := range s.Modules {
		k, ok := t.Modules[name]
		if !ok || k.R != l.R || k.In != l.In || k.Out != l.Out || !sameBits(k.A, l.A) || !sameBits(k.B, l.B) {
			p.addf("the branch of %s differs", name)
		} else if k.Scale != l.Scale {
			p.addf("the scale of %s is %v by the configuration, want %v", name, k.Scale, l.Scale)
		}
	}
	for name, f := range s.Full {
		if g, ok := t.Full[name]; !ok || g.Rows != f.Rows || g.Cols != f.Cols || !sameBits(g.Data, f.Data) {
			p.addf("%s differs", name)
		}
	}
	if len(t.Modules) != len(s.Modules) || len(t.Full) != len(s.Full) {
		p.addf("%d modules, want %d", len(t.Modules)+len(t.Full), len(s.Modules)+len(s.Full))
	}
	return p.err()
}

// ownCard reports whether the file at path is missing or one of ours.
func ownCard(path string) bool {
	data, err := regular.ReadFile(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	return err == nil && bytes.Contains(data, []byte(cardTag))
}

// cardTag marks the cards that card writes.
const cardTag = "\n- biolora\n"

// card is a short model card, with the front matter that the Hugging Face hub reads.
func (s *Saved) card() []byte {
	var b bytes.Buffer
	c := s.Config
	b.WriteString("---\n")
	base := "its base model"
	if c.BaseModel != "" {
		base = "`" + c.BaseModel + "`"
		fmt.Fprintf(&b, "base_model: %q\n", c.BaseModel)
	}
	fmt.Fprintf(&b, "library_name: peft\npipeline_tag: text-generation\ntags:\n- lora%s---\n\n# LoRA adapter\n\n", cardTag)
	fmt.Fprintf(&b, "A low-rank adapter for %s, in the format of Hugging Face PEFT.\n\n", base)
	b.WriteString("| | |\n|---|---|\n")
	fmt.Fprintf(&b, "| rank | %d |\n| alpha | %v |\n| dropout | %v |\n", c.R, c.LoraAlpha, c.LoraDropout)
	if c.UseRSLoRA {
		b.WriteString("| scale | alpha / sqrt(rank) |\n")
	}
	fmt.Fprintf(&b, "| adapted modules | %d (%s) |\n", len(s.Modules), c.TargetModules)
	if s.Base != "" {
		fmt.Fprintf(&b, "| base in training | linears in %s |\n", s.Base)
	}
	if s.Card != "" {
		fmt.Fprintf(&b, "| trained on | %s |\n", s.Card)
	}
	if len(s.Full) > 0 {
		fmt.Fprintf(&b, "| trained whole | %v |\n", slices.Sorted(maps.Keys(s.Full)))
	}
	fmt.Fprintf(&b, "| parameters | %d |\n", s.parameters())
	b.WriteString("\n```python\nfrom peft import AutoPeftModelForCausalLM\n\nmodel = AutoPeftModelForCausalLM.from_pretrained(\"path/to/this/directory\")\n```\n")
	return b.Bytes()
}

func (s *Saved) parameters() (n int) {
	for _, l := range s.Modules {
		n += len(l.A) + len(l.B)
	}
	for _, f := range s.Full {
		n += len(f.Data)
	}
	return n
}
