package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"
)

// maxFile is the size of the largest file that is read. The largest tokenizer.json of the field have some 30 MB.
const maxFile = 1 << 26

// readFile reads a whole file that is no larger than maxFile.
func readFile(path string) ([]byte, error) { return readUpTo(path, maxFile) }

// readUpTo reads a whole file that is no larger than limit bytes.
func readUpTo(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, explainMissing(path, err)
	}
	if !info.Mode().IsRegular() { // such as a pipe, which might never end
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are plausible", path, info.Size(), limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(f, limit)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data.Bytes(), nil
}

// explainMissing tells a symbolic link that leads nowhere from a name that is not there: nothing else is read in place of
// the file, so the error is not fs.ErrNotExist.
func explainMissing(path string, err error) error {
	if to, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is a symbolic link to %.200q, which is not there", path, to)
	}
	return err
}

// document reads JSON value by value, in the file's order, and says where an error lies. Its text is valid JSON, so
// only what the values are can be wrong.
type document struct {
	file string
	data []byte
	at   int
}

// newDocument returns the document with this text, or says where it is not JSON.
func newDocument(file string, data []byte) (*document, error) {
	d := &document{file: file, data: data}
	if json.Valid(data) {
		return d, nil
	}
	var discard json.RawMessage
	err := json.Unmarshal(data, &discard)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		d.at = int(syntax.Offset)
	}
	return nil, d.errorf("not JSON: %w", err)
}

// errorf describes an error at the place that was reached.
func (d *document) errorf(format string, args ...any) error { return d.errorAt(d.at, format, args...) }

// errorAt describes an error at a byte of the file.
func (d *document) errorAt(offset int, format string, args ...any) error {
	offset = max(0, min(offset, len(d.data)))
	line := 1 + bytes.Count(d.data[:offset], []byte("\n"))
	err := fmt.Errorf(format, args...)
	if text := err.Error(); len(text) > maxMessage { // encoding/json repeats numbers, however long
		err = errors.New(strings.ToValidUTF8(text[:maxMessage], "") + "...")
	}
	return fmt.Errorf("%s:%d (byte %d): %w", d.file, line, offset, err)
}

// maxMessage is the length in bytes of what an error says of one place of a file.
const maxMessage = 1000

// problem adds an error to those of the file. Of problems that are only counted no description is made: to find the
// line of each would take a time that grows with the square of the file.
func (d *document) problem(bad *problems, offset int, format string, args ...any) {
	if bad.full() {
		bad.more++
		return
	}
	bad.add(d.errorAt(offset, format, args...))
}

// peek goes to the next value or closing bracket and returns its first byte, 0 at the end.
func (d *document) peek() byte {
	for d.at < len(d.data) {
		switch b := d.data[d.at]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
			d.at++
		default:
			return b
		}
	}
	return 0
}

// object reads an object; field reads the value of each key.
func (d *document) object(path string, field func(key string) error) error {
	return d.each(path, '{', '}', "an object", func(int) error {
		return field(d.text(d.raw()))
	})
}

// array reads an array; item reads each value.
func (d *document) array(path string, item func(i int) error) error {
	return d.each(path, '[', ']', "an array", item)
}

func (d *document) each(path string, open, end byte, kind string, read func(i int) error) error {
	if d.peek() != open {
		return d.errorf("%s: want %s, got %s", path, kind, brief(d.raw()))
	}
	d.at++
	for i := 0; d.peek() != end; i++ {
		if err := read(i); err != nil {
			return err
		}
	}
	d.at++
	return nil
}

// raw reads one value as it is written.
func (d *document) raw() json.RawMessage {
	first := d.peek()
	start, depth := d.at, 0
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case '"':
			d.skipString()
			if depth == 0 {
				return d.data[start:d.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				d.at++
				return d.data[start:d.at]
			}
			if depth < 0 {
				return d.data[start:d.at]
			}
		case ' ', '\t', '\r', '\n', ',', ':':
			if first != '{' && first != '[' {
				return d.data[start:d.at]
			}
		}
		d.at++
	}
	return d.data[start:d.at]
}

// skipString goes past a string.
func (d *document) skipString() {
	for d.at++; d.data[d.at] != '"'; d.at++ {
		if d.data[d.at] == '\\' {
			d.at++
		}
	}
	d.at++
}

// text returns the value of a string, "" for anything else.
func (d *document) text(raw json.RawMessage) string {
	if !isString(raw) {
		return ""
	}
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return ""
	}
	return s
}

func isString(raw json.RawMessage) bool { return len(raw) >= 2 && raw[0] == '"' }

// value reads one value into dst.
func (d *document) value(path string, dst any) error {
	raw := d.raw()
	if err := json.Unmarshal(raw, dst); err != nil {
		return d.errorf("%s: %w", path, err)
	}
	return nil
}

// brief returns the beginning of a value, for errors.
func brief(raw json.RawMessage) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "..."
	}
	return string(raw)
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
	case !p.full():
		p.list = append(p.list, err)
	default:
		p.more++
	}
}

// full reports whether further errors are only counted.
func (p *problems) full() bool { return len(p.list) == maxProblems }

func (p *problems) err() error {
	if p.more > 0 {
		return errors.Join(append(p.list, fmt.Errorf("and %d more", p.more))...)
	}
	return errors.Join(p.list...)
}
