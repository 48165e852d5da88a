package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/model/weights"
	"github.com/biolora/biolora/tokenizer"
)

// ModelFingerprint tells a checkpoint by the texts of its configuration and tokenizer, and the names, sizes and samples
// of the files with weights.
func ModelFingerprint(path string) (string, error) {
	ckpt, err := weights.Open(path)
	if err != nil {
		return "", err
	}
	files := ckpt.Files()
	if err := ckpt.Close(); err != nil {
		return "", err
	}
	h := sha256.New()
	tok, err := tokenizer.Load(path)
	if err != nil {
		return "", err
	}
	texts := tok.Files()
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		texts = append(texts, filepath.Join(path, "config.json"), filepath.Join(path, weights.ParamsFile))
	}
	slices.Sort(texts)
	for _, file := range slices.Compact(texts) {
		if slices.Contains(files, file) {
			continue
		}
		sum, err := fingerprint.File(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(file), sum)
	}
	for _, file := range files {
		if err := sample(h, file); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func sample(h io.Writer, path string) error {
	f, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	fmt.Fprintln(h, filepath.Base(path), info.Size())
	return fingerprint.Sample(h, f, info.Size())
}

// AdapterFingerprint is the SHA-256 of an adapter's configuration and weights.
func AdapterFingerprint(dir string) (string, error) {
	config, err := fingerprint.File(filepath.Join(dir, lora.ConfigFile))
	if err != nil {
		return "", err
	}
	values, err := fingerprint.File(filepath.Join(dir, lora.WeightsFile))
	if errors.Is(err, fs.ErrNotExist) {
		values, err = fingerprint.File(filepath.Join(dir, "adapter_model.bin"))
	}
	if err != nil {
		return "", err
	}
	return fingerprint.Texts(config, values), nil
}

// Fits checks an adapter against its model, without opening the model.
func Fits(path, adapter string) (err error) {
	ckpt, err := weights.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ckpt.Close()) }()
	d, err := model.Describe(ckpt)
	if err != nil {
		return err
	}
	saved, err := lora.Read(adapter)
	if err != nil {
		return err
	}
	var linears []lora.Module
	for _, l := range d.Linears {
		linears = append(linears, lora.Module{Name: l.Name, In: l.In, Out: l.Out})
	}
	if err := saved.Fits(lora.Decoder(linears, d.Config.VocabSize, d.Config.HiddenSize), d.Config.TieWordEmbeddings); err != nil {
		return fmt.Errorf("the adapter in %s: %w", adapter, err)
	}
	return nil
}
