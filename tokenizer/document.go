package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxFile is the size of the largest file that is read.
const maxFile = 1 << 29

// readFile reads a whole file that is no larger than maxFile.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// document reads JSON value by value, in the file's order, and says where an error lies.
type document struct {
	file string
	data []byte
	dec  *json.Decoder
}

func newDocument(file string, data []byte) *document {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	return &document{file: file, data: data, dec: dec}
}

// errorAt describes an error at a byte of the file.
func (d *document) errorAt(offset int64, format string, args ...any) error {
	offset = min(offset, int64(len(d.data)))
	line := 1 + bytes.Count(d.data[:offset], []byte("\n"))
	return fmt.Errorf("%s:%d (byte %d): %w", d.file, line, offset, fmt.Errorf(format, args...))
}

func (d *document) errorf(format string, args ...any) error {
	return d.errorAt(d.dec.InputOffset(), format, args...)
}

// broken describes an error of the JSON reader.
func (d *document) broken(path string, err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return d.errorAt(int64(len(d.data)), "%s: the file ends early", path)
	case errors.As(err, &syntax):
		return d.errorAt(syntax.Offset, "%s: %w", path, err)
	}
	return d.errorf("%s: %w", path, err)
}

func (d *document) token(path string) (json.Token, error) {
	t, err := d.dec.Token()
	if err != nil {
		return nil, d.broken(path, err)
	}
	return t, nil
}

// open reads the bracket that begins an object or array.
func (d *document) open(path string, want json.Delim, kind string) error {
	t, err := d.token(path)
	if err != nil {
		return err
	}
	if t != want {
		return d.errorf("%s: want %s, got %s", path, kind, describe(t))
	}
	return nil
}

func describe(t json.Token) string {
	switch v := t.(type) {
	case json.Delim:
		return fmt.Sprintf("%q", v.String())
	case string:
		return fmt.Sprintf("%.40q", v)
	}
	return fmt.Sprintf("%.40v", t)
}

// peek returns the first byte of the value that comes next, 0 at the end of the file.
func (d *document) peek() byte {
	for _, b := range d.data[d.dec.InputOffset():] {
		if !strings.ContainsRune(" \t\r\n:,", rune(b)) {
			return b
		}
	}
	return 0
}

// object reads an object; field reads the value of each key.
func (d *document) object(path string, field func(key string) error) error {
	if err := d.open(path, '{', "an object"); err != nil {
		return err
	}
	for d.dec.More() {
		key, err := d.token(path)
		if err != nil {
			return err
		}
		if err := field(key.(string)); err != nil {
			return err
		}
	}
	_, err := d.token(path)
	return err
}

// array reads an array; item reads each value.
func (d *document) array(path string, item func(i int) error) error {
	if err := d.open(path, '[', "an array"); err != nil {
		return err
	}
	for i := 0; d.dec.More(); i++ {
		if err := item(i); err != nil {
			return err
		}
	}
	_, err := d.token(path)
	return err
}

// value reads one value into dst.
func (d *document) value(path string, dst any) error {
	if err := d.dec.Decode(dst); err != nil {
		return d.broken(path, err)
	}
	return nil
}

// raw reads one value unread.
func (d *document) raw(path string) (json.RawMessage, error) {
	var v json.RawMessage
	err := d.value(path, &v)
	return v, err
}

// finish checks that nothing follows.
func (d *document) finish() error {
	if _, err := d.dec.Token(); !errors.Is(err, io.EOF) {
		return d.errorf("more text after the end of the JSON object")
	}
	return nil
}

// problems gathers errors, the first few of them.
type problems struct {
	list []error
	more int
}

const maxProblems = 8

func (p *problems) add(err error) {
	switch {
	case err == nil:
	case len(p.list) < maxProblems:
		p.list = append(p.list, err)
	default:
		p.more++
	}
}

func (p *problems) err() error {
	if p.more > 0 {
		return errors.Join(append(p.list, fmt.Errorf("and %d more", p.more))...)
	}
	return errors.Join(p.list...)
}
