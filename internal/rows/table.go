package rows

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/strictjson"
)

// maxColumns is how many columns a table may have.
const maxColumns = 4096

// table reads CSV and TSV whose first line names the columns.
type table struct {
	name   string
	r      *bufio.Reader
	comma  byte
	line   int // of the next byte
	header []string
	buf    []byte // of the field that is read
	blank  bool   // the last line was empty; "" in a table of one column is not
	err    error  // that ended the file
}

func newTable(name string, r *bufio.Reader, comma byte) *table {
	return &table{name: name, r: r, comma: comma, line: 1}
}

func (t *table) next() (Record, error) {
	if t.err != nil {
		return Record{}, t.err
	}
	if t.header == nil {
		if err := t.readHeader(); err != nil {
			t.err = err
			return Record{}, err
		}
	}
	rec := Record{Place: Place{File: t.name, Line: t.line, Element: -1}, Fields: strictjson.NewObject()}
	values, n, err := t.fields(len(t.header))
	for err == nil && t.blank {
		rec.Line = t.line
		values, n, err = t.fields(len(t.header))
	}
	var bad *rowError
	switch {
	case err == io.EOF:
		t.err = err
		return Record{}, err
	case errors.As(err, &bad):
		return Record{}, &Error{Place: rec.Place, Err: bad.error}
	case err != nil:
		t.err = fmt.Errorf("%s:%d: %w", t.name, t.line, err)
		return Record{}, t.err
	case n != len(t.header):
		return Record{}, &Error{Place: rec.Place, Err: fmt.Errorf("expected %d fields as in the first line, got %d", len(t.header), n)}
	}
	for i, name := range t.header {
		rec.Fields.Set(name, values[i])
	}
	return rec, nil
}

// rowError is an error of one row.
type rowError struct{ error }

func (t *table) readHeader() error {
	header, n, err := t.fields(maxColumns)
	switch {
	case err == io.EOF:
		return io.EOF // an empty file
	case err != nil:
		return fmt.Errorf("%s:1: %w", t.name, err)
	case n > maxColumns:
		return fmt.Errorf("%s:1: the first line has %d columns, at most %d are plausible", t.name, n, maxColumns)
	}
	seen := map[string]bool{}
	for i, h := range header {
		header[i] = strings.TrimSpace(h)
		if seen[header[i]] {
			return fmt.Errorf("%s:1: the column %s is there twice; the first line names the columns", t.name, abbreviate(header[i]))
		}
		seen[header[i]] = true
	}
	t.header = header
	return nil
}

type fieldState uint8

const (
	fieldStart fieldState = iota
	plain
	quoted
	quoteInQuoted
)

// fields reads one record: the first most of its fields, and how many it has. Where the error is a *rowError the record
// has been read to its end.
func (t *table) fields(most int) (values []string, n int, err error) {
	if _, err := t.r.Peek(1); err != nil {
		return nil, 0, err
	}
	var fault error
	state, size, lines := fieldStart, 0, 0
	end := func() {
		if n++; n <= most && fault == nil {
			if i := jsoncut.InvalidAt(t.buf); i >= 0 {
				fault = fmt.Errorf("field %d: invalid UTF-8 at byte %d", n, i)
			}
			values = append(values, string(t.buf))
		}
		t.buf, state, lines = t.buf[:0], fieldStart, 0
	}
	t.buf, t.blank = t.buf[:0], true
	for {
		b, err := t.r.ReadByte()
		if err == io.EOF {
			if state == quoted && fault == nil {
				fault = fmt.Errorf("the quote that opens field %d is never closed", n+1)
			}
			end()
			break
		}
		if err != nil {
			return nil, 0, err
		}
		if b == '\n' {
			t.line++
		}
		t.blank = t.blank && (b == '\n' || b == '\r')
		if size++; size > jsoncut.MaxRecord && fault == nil {
			fault = fmt.Errorf("the row has more than %d bytes", jsoncut.MaxRecord)
		}
		if b == '\n' && state != quoted {
			if len(t.buf) > 0 && t.buf[len(t.buf)-1] == '\r' && state != quoteInQuoted {
				t.buf = t.buf[:len(t.buf)-1]
			}
			end()
			break
		}
		switch {
		case b == t.comma && state != quoted:
			end()
			continue
		case b == '"' && state == fieldStart:
			state = quoted
			continue
		case b == '"' && state == quoted:
			state = quoteInQuoted
			continue
		case state == fieldStart:
			state = plain
		case state == quoted && b == '\n':
			lines++
		case b == '"' && state == quoteInQuoted:
			state = quoted
		case b == '\r' && state == quoteInQuoted:
			continue // of the line's end
		case state == quoteInQuoted && t.comma == '\t' && lines == 0:
			t.buf = append(append([]byte{'"'}, t.buf...), '"') // the quotes were text
			state = plain
		case state == quoteInQuoted:
			if fault == nil {
				fault = fmt.Errorf("field %d goes on with %q after its closing quote; a quote in a quoted field is written twice", n+1, b)
			}
			state = plain
		}
		if fault == nil {
			t.buf = append(t.buf, b)
		}
	}
	if fault != nil {
		return nil, n, &rowError{fault}
	}
	return values, n, nil
}
