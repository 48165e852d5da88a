package tokenizer

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// locate returns the file that a tokenizer is read from: path itself, or the first of those that a directory may have.
func locate(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return path, nil
	}
	for _, name := range []string{"tokenizer.json", "tokenizer.model"} {
		file := filepath.Join(path, name)
		if _, err := os.Lstat(file); err == nil { // a link that leads nowhere is told when it is read
			return file, nil
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if name := e.Name(); strings.EqualFold(filepath.Ext(name), ".gguf") && !laterPart.MatchString(name) {
			found = append(found, name)
		}
	}
	if len(found) == 1 {
		return filepath.Join(path, found[0]), nil
	}
	if len(found) > 1 {
		return "", fmt.Errorf("%s: which of these is meant? %s", path, strings.Join(found[:min(len(found), 8)], ", "))
	}
	return "", &absence{fmt.Sprintf("%s: no tokenizer.json, tokenizer.model or .gguf file%s", path, otherForms(entries))}
}

// absence says that there is no tokenizer, as opposed to one that cannot be read. It is fs.ErrNotExist.
type absence struct{ text string }

func (e *absence) Error() string        { return e.text }
func (e *absence) Is(target error) bool { return target == fs.ErrNotExist }

// laterPart are the names of the second and later files of a checkpoint that was split: the first has the vocabulary.
var laterPart = regexp.MustCompile(`-(\d*[2-9]|\d*[1-9]\d+)-of-\d+\.(?i:gguf)$`)

// otherForms says which files that cannot be read here a directory has.
func otherForms(entries []os.DirEntry) string {
	var found []string
	for _, e := range entries {
		name := e.Name()
		if slices.Contains([]string{"tekken.json", "vocab.json", "merges.txt", "spiece.model"}, name) || filepath.Ext(name) == ".tiktoken" {
			found = append(found, name)
		}
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf(" (there is %s, which cannot be read)", strings.Join(found[:min(len(found), 8)], ", "))
}

// headSize is how much of a file its form is told by.
const headSize = 512

// readVocabulary reads a file of any form. Problems that do not keep it from being read further are returned apart.
func readVocabulary(path string, s *settings) (*vocabulary, problems, error) {
	head, err := readHead(path)
	if err != nil {
		return nil, problems{}, err
	}
	if bytes.HasPrefix(head, []byte("GGUF")) {
		v, err := readGGUF(path)
		return v, problems{}, err
	}
	if err := refuseForm(path, head); err != nil {
		return nil, problems{}, err
	}
	data, err := readFile(path)
	if err != nil {
		return nil, problems{}, err
	}
	return parseVocabulary(path, data, s)
}

// parseVocabulary reads the text of a file that is not GGUF.
func parseVocabulary(path string, data []byte, s *settings) (*vocabulary, problems, error) {
	head := data[:min(len(data), headSize)]
	if err := refuseForm(path, head); err != nil {
		return nil, problems{}, err
	}
	switch {
	case filepath.Ext(path) == ".json" || jsonStart.Match(head):
		return parseJSON(path, data)
	case len(data) == 0:
		return nil, problems{}, fmt.Errorf("%s: the file is empty", path)
	case tiktokenStart.Match(head):
		v, err := parseTiktoken(path, data, s)
		return v, problems{}, err
	}
	v, err := parseSentencePiece(path, data, s)
	return v, problems{}, err
}

func parseJSON(path string, data []byte) (*vocabulary, problems, error) {
	f, err := parseFile(path, data)
	if err != nil {
		return nil, problems{}, err
	}
	v, err := f.vocabulary()
	return v, f.bad, err
}

func readHead(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, explainMissing(path, err)
	}
	if !info.Mode().IsRegular() { // such as a pipe, which might never end
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	n, err := f.ReadAt(head, 0)
	if n == 0 && info.Size() > 0 {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return head[:n], nil
}

// How the forms begin. A SentencePiece model begins with a line feed, as JSON may, but not with what follows it here.
var (
	jsonStart     = regexp.MustCompile(`^(\x{feff})?[ \t\r\n]*\{[ \t\r\n]*["}]`)
	tiktokenStart = regexp.MustCompile(`^[A-Za-z0-9+/]+={0,2} [0-9]+[\r\n]`)
	htmlStart     = regexp.MustCompile(`(?i)^(\x{feff})?[ \t\r\n]*<(!doctype|html|head|body|\?xml)`)
)

// refuseForm says what a file is that is often found in the place of a tokenizer.
func refuseForm(path string, head []byte) error {
	what := ""
	switch {
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/")):
		what = "a Git LFS pointer, not the file itself: fetch it with git lfs pull"
	case htmlStart.Match(head):
		what = "a web page, such as an error page or a login: download the file again"
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		what = "a zip archive, not a tokenizer"
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		what = "compressed with gzip: unpack it first"
	case bytes.HasPrefix(head, []byte("\x80\x02")) || bytes.HasPrefix(head, []byte("\x80\x04")):
		what = "a pickle, not a tokenizer"
	default:
		return nil
	}
	return fmt.Errorf("%s: the file is %s", path, what)
}
