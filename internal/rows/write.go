package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/strictjson"
)

// Write writes rows to the file at path, in the format that its name ends in: .json, .jsonl (or .ndjson) or .parquet. The
// file is there when all rows are; where the sequence has an error, bad rows included, nothing is written and that error
// is returned. n is how many rows were written.
func Write(path string, rows iter.Seq2[Row, error]) (n int, err error) {
	format := strings.ToLower(filepath.Ext(path))
	if _, ok := sinks[format]; !ok {
		return 0, fmt.Errorf("%s: rows are written to files that end in .json, .jsonl or .parquet", path)
	}
	err = atomicfile.Write(path, func(w io.Writer) (err error) {
		n, err = Encode(w, format, rows)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// Encode writes rows to w as Write does. The format is what a file's name would end in.
func Encode(w io.Writer, format string, rows iter.Seq2[Row, error]) (n int, err error) {
	newSink, ok := sinks[format]
	if !ok {
		return 0, fmt.Errorf("rows are written as .json, .jsonl or .parquet, not as %q", format)
	}
	s := newSink(w)
	for row, err := range rows {
		if err == nil {
			err = writable(&row)
		}
		if err == nil {
			err = s.put(&row)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, s.end()
}

// sink writes rows in one format.
type sink interface {
	put(*Row) error
	end() error
}

var sinks = map[string]func(io.Writer) sink{
	".json":    func(w io.Writer) sink { return &jsonSink{w: w, array: true} },
	".jsonl":   func(w io.Writer) sink { return &jsonSink{w: w} },
	".ndjson":  func(w io.Writer) sink { return &jsonSink{w: w} },
	".parquet": func(w io.Writer) sink { return newParquetSink(w) },
}

// writable refuses rows that would not be read as they were written.
func writable(r *Row) error {
	var errs []error
	errs = append(errs, r.Check())
	taken := map[string]bool{}
	for _, t := range r.texts() {
		taken[t.key] = true
		if !utf8.ValidString(*t.value) {
			errs = append(errs, fmt.Errorf("the field %q is not UTF-8", t.key))
		}
	}
	for _, f := range r.Extra {
		if taken[f.Key] {
			errs = append(errs, fmt.Errorf("the field %q is there twice", f.Key))
		}
		taken[f.Key] = true
		if !utf8.Valid(appendFields(nil, []Field{f})) {
			errs = append(errs, fmt.Errorf("the field %q is not UTF-8", f.Key))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("row %q: %w", r.ID, err)
	}
	return nil
}

// jsonSink writes rows as JSON Lines, or as an array with an element a line.
type jsonSink struct {
	w     io.Writer
	array bool
	buf   []byte
	some  bool
}

func (s *jsonSink) put(r *Row) error {
	s.buf = s.buf[:0]
	if s.array && s.some {
		s.buf = append(s.buf, ",\n"...)
	} else if s.array {
		s.buf = append(s.buf, "[\n"...)
	}
	s.some = true
	s.buf = appendRow(s.buf, r)
	if !s.array {
		s.buf = append(s.buf, '\n')
	}
	_, err := s.w.Write(s.buf)
	return err
}

func (s *jsonSink) end() error {
	tail := ""
	switch {
	case s.array && s.some:
		tail = "\n]\n"
	case s.array:
		tail = "[]\n"
	}
	_, err := io.WriteString(s.w, tail)
	return err
}

// always is how many of the eight fields are written where they are empty, too.
const always = 3

func appendRow(b []byte, r *Row) []byte {
	var fields []Field
	for i, t := range r.texts() {
		if i < always || *t.value != "" {
			fields = append(fields, Field{t.key, *t.value})
		}
	}
	return appendFields(b, append(fields, r.Extra...))
}

// appendFields appends a JSON object.
func appendFields(b []byte, fields []Field) []byte {
	b = append(b, '{')
	for i, f := range fields {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(appendString(b, f.Key), ": "...)
		b = appendValue(b, f.Value)
	}
	return append(b, '}')
}

// appendValue appends a value of the types that strictjson returns.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v)
	case json.Number:
		return append(b, v...)
	case string:
		return appendString(b, v)
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	case *strictjson.Object:
		var fields []Field
		for _, key := range v.Keys {
			value, _ := v.Get(key)
			fields = append(fields, Field{key, value})
		}
		return appendFields(b, fields)
	}
	return append(b, "null"...)
}

// appendString appends a string with only those characters escaped that JSON requires.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\t':
			b = append(b, `\t`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			b = fmt.Appendf(b, `\u%04x`, c)
		}
	}
	return append(append(b, s[from:]...), '"')
}
