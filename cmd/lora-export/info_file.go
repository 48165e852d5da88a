package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
)

// describeFile tells of one file, by its beginning and, where that does not say what it is, by its name.
func describeFile(path string, all bool) (*description, error) {
	head, err := readHead(path)
	if err != nil {
		return nil, err
	}
	name, ext := filepath.Base(path), strings.ToLower(filepath.Ext(path))
	switch {
	case bytes.HasPrefix(head, []byte("GGUF")), ext == ".gguf":
		return describeGGUF(path, all)
	case ext == ".safetensors", bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte{0x80, 0x02}),
		slices.Contains([]string{".bin", ".pth", ".pt", ".ckpt"}, ext):
		return describeTensors(path, all)
	case name == model.ConfigFile:
		return describeConfigFile(path)
	case name == lora.ConfigFile:
		return nil, fmt.Errorf("%s is one file of an adapter: name its directory", path)
	case strings.HasSuffix(name, ".index.json"), name == weights.ParamsFile, name == "tokenizer_config.json", name == "generation_config.json":
		return nil, fmt.Errorf("%s is one file of a checkpoint: name its directory", path)
	}
	d, err := describeTokenizer(path)
	if err != nil && !slices.Contains([]string{".json", ".model", ".tiktoken"}, ext) {
		err = fmt.Errorf("%s is no file of weights, of a configuration or of a tokenizer that is known here: %w", path, err)
	}
	return d, err
}

// readHead returns the first bytes of a file.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if n == 0 {
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// describeTensors tells of a file of tensors, which may be a checkpoint's only one or one of many.
func describeTensors(path string, all bool) (*description, error) {
	d := newDescription(path, kindTensors, all)
	d.addFiles(path)
	d.Tensors = newTensors(all)
	var err error
	if d.Format, d.Metadata, err = d.Tensors.addFile(path); err != nil {
		return nil, err
	}
	if holds, ok := weights.DescribeCache(d.Metadata); ok {
		d.Kind = kindCache
		d.warn(holds + "; lora-train made it, finds it again by itself, and makes it anew where it is missing")
	}
	d.Tensors.finish()
	return d.finish(), nil
}

// describeConfigFile tells of a config.json by itself.
func describeConfigFile(path string) (*description, error) {
	o, err := strictjson.ReadObject(path, maxConfig)
	if err != nil {
		return nil, err
	}
	d := newDescription(path, kindConfig, false)
	d.addFiles(path)
	if cfg := d.takeConfig(o, path); cfg != nil {
		for _, s := range cfg.Stored(nil) {
			d.Model.Parameters += int64(product(s.Shape))
		}
	}
	return d.finish(), nil
}

// describeGGUF tells of a GGUF file: a model's, a vocabulary's or an adapter's. Its own names are shown, and what is
// wrong with it for this program are reasons, not errors, once it can be read as GGUF.
func describeGGUF(path string, all bool) (*description, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	own := newTensors(all)
	for t := range f.All() {
		own.add(tensor{Name: t.Name, Format: t.Type.String(), Shape: t.Shape, Bytes: int64(len(t.Data))})
	}
	own.finish()
	metadata := shortMetadata(f)
	if own.Count == 0 && f.Has("tokenizer.ggml.model") {
		d, err := describeTokenizer(path)
		if d != nil {
			d.Format, d.Metadata = "gguf", metadata
		}
		return d, err
	}
	d, err := describeCheckpoint(path, all)
	if d == nil || d.Tensors == nil {
		d = newDescription(path, kindCheckpoint, all)
		d.refuse(err)
		d.addFiles(path)
		d.describeTokenizer(path)
		d.Model = ggufArchitecture(path)
	} else {
		own.InPlace, own.ConvertedF32, own.ConvertedBF16 = d.Tensors.InPlace, d.Tensors.ConvertedF32, d.Tensors.ConvertedBF16
	}
	if kind, _ := f.String("general.type"); kind == "adapter" {
		d.Kind = kindAdapter
		d.Unsupported = []string{path + ": a GGUF adapter; adapters are read as PEFT directories"}
	}
	d.Format, d.Tensors, d.Metadata = "gguf", own, metadata
	return d.finish(), nil
}

// ggufArchitecture is what a GGUF file is of that cannot be used: all that is told is its name.
func ggufArchitecture(path string) *architecture {
	a := &architecture{Source: path}
	f, err := gguf.Open(path)
	if err != nil {
		return a
	}
	defer f.Close()
	a.ModelType, _ = f.String("general.architecture")
	return a
}

// maxValue is the number of characters of a metadata value that are shown.
const maxValue = 120

// shortMetadata lists the metadata; long values and arrays only by their type and length.
func shortMetadata(f *gguf.File) map[string]string {
	m := map[string]string{}
	for _, key := range f.Keys() {
		kind, n := f.ValueType(key)
		if strings.HasPrefix(kind, "[]") {
			m[key] = fmt.Sprintf("%s of %d", kind, n)
			continue
		}
		v, _ := f.Value(key)
		text := strings.ToValidUTF8(fmt.Sprint(v), "\uFFFD")
		if runes := []rune(text); len(runes) > maxValue {
			text = fmt.Sprintf("%s... (%d bytes)", string(runes[:maxValue]), len(text))
		}
		m[key] = text
	}
	return m
}
