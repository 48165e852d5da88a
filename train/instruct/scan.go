package instruct

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxRowBytes bounds the memory one row may take; no instruction comes near it.
const maxRowBytes = 64 << 20

// place is where a row stands.
type place struct {
	file    string
	line    int // from 1, where the row begins
	element int // index in a JSON array, or -1
}

func (p place) String() string {
	if p.element < 0 {
		return fmt.Sprintf("%s:%d", p.file, p.line)
	}
	return fmt.Sprintf("%s:%d (element %d)", p.file, p.line, p.element)
}

// rowError is an error of one row; the rows after it can be read.
type rowError struct {
	place
	err error
}

func (e *rowError) Error() string { return e.place.String() + ": " + e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }

// rawRow is the JSON of one row. The bytes are valid until the next call of next.
type rawRow struct {
	place
	json []byte
}

// scanner cuts a file into rows, one in memory at a time: the lines of JSON Lines, or the elements of a JSON array.
// It knows just enough of JSON to find where an element ends.
type scanner struct {
	name    string
	r       *bufio.Reader
	buf     []byte
	line    int // of the next byte
	element int // index of the next one
	state   scanState
}

type scanState uint8

const (
	atStart scanState = iota
	inLines
	inArray // before the first element
	afterElement
	atEnd
)

func newScanner(name string, r io.Reader) *scanner {
	return &scanner{name: name, r: bufio.NewReaderSize(r, 1<<16), line: 1}
}

// next returns the next row; io.EOF after the last one. After a *rowError the scanner goes on with the row after
// it; other errors are the file's.
func (s *scanner) next() (rawRow, error) {
	if s.state == atStart {
		if err := s.start(); err != nil {
			return rawRow{}, err
		}
	}
	switch s.state {
	case inLines:
		return s.nextLine()
	case inArray, afterElement:
		return s.nextElement()
	}
	return rawRow{}, io.EOF
}

// foreign are files that people take for rows, by their first bytes.
var foreign = []struct{ begins, is string }{
	{"\xFF\xFE\x00\x00", "the file is UTF-32; it must be UTF-8"},
	{"\xFF\xFE", "the file is UTF-16; it must be UTF-8"},
	{"\xFE\xFF", "the file is UTF-16; it must be UTF-8"},
	{"\x1F\x8B", "the file is compressed with gzip; unpack it first"},
	{"\x28\xB5\x2F\xFD", "the file is compressed with zstd; unpack it first"},
	{"\xFD7zX", "the file is compressed with xz; unpack it first"},
	{"BZh", "the file is compressed with bzip2; unpack it first"},
	{"PK\x03\x04", "the file is a zip archive; unpack it first"},
	{"PAR1", "the file is Parquet; export it as JSON Lines first"},
	{"ARRO", "the file is Arrow; export it as JSON Lines first"},
}

// start skips a byte order mark and white space and tells lines from an array.
func (s *scanner) start() error {
	head, err := s.r.Peek(4)
	if err != nil && err != io.EOF {
		return s.fail(err)
	}
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.begins)) {
			return s.fail(errors.New(f.is))
		}
	}
	if len(head) == 4 && (head[0] == 0 || head[1] == 0) { // no JSON begins so
		return s.fail(errors.New("the file is UTF-16 or UTF-32, or no text; it must be JSON in UTF-8"))
	}
	if bytes.HasPrefix(head, []byte{0xEF, 0xBB, 0xBF}) {
		s.r.Discard(3)
	}
	c, err := s.skipSpace()
	if err == io.EOF {
		s.state = atEnd
		return nil
	}
	if err != nil {
		return s.fail(err)
	}
	if c == '[' {
		s.state = inArray
		return nil
	}
	s.r.UnreadByte()
	s.state = inLines
	return nil
}

// skipSpace returns the next byte that is not white space.
func (s *scanner) skipSpace() (byte, error) {
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case '\n':
			s.line++
		case ' ', '\t', '\r':
		default:
			return c, nil
		}
	}
}

func (s *scanner) fail(err error) error {
	s.state = atEnd
	return fmt.Errorf("%s:%d: %w", s.name, s.line, err)
}

func (s *scanner) nextLine() (rawRow, error) {
	for {
		at := place{s.name, s.line, -1}
		s.buf = s.buf[:0]
		long, last := false, false
		for {
			part, err := s.r.ReadSlice('\n')
			if long = long || len(s.buf)+len(part) > maxRowBytes; !long {
				s.buf = append(s.buf, part...)
			}
			if err == nil {
				s.line++
				break
			}
			if err == io.EOF {
				last = true
				break
			}
			if err != bufio.ErrBufferFull {
				return rawRow{}, s.fail(err)
			}
		}
		if last {
			s.state = atEnd
		}
		row := rawRow{at, bytes.TrimSpace(s.buf)}
		if long || len(row.json) > 0 {
			return s.check(row, long)
		}
		if last {
			return rawRow{}, io.EOF
		}
	}
}

func (s *scanner) nextElement() (rawRow, error) {
	c, err := s.skipSpace()
	if err == nil && c == ',' && s.state == afterElement {
		if c, err = s.skipSpace(); err == nil && c == ']' {
			return rawRow{}, s.fail(errors.New("expected an element after the comma, got the end of the array"))
		}
	} else if err == nil && c != ']' && s.state == afterElement {
		return rawRow{}, s.fail(fmt.Errorf("expected a comma or the end of the array after element %d, got %q", s.element-1, c))
	}
	if err == nil && c == ']' {
		return rawRow{}, s.endOfArray()
	}
	if err == nil && c == ',' {
		return rawRow{}, s.fail(fmt.Errorf("expected element %d of the array, got a comma", s.element))
	}
	if err == nil {
		s.r.UnreadByte()
		row := rawRow{place: place{s.name, s.line, s.element}}
		s.element++
		s.state = afterElement
		var long bool
		if long, err = s.readElement(); err == nil {
			row.json = bytes.TrimSpace(s.buf)
			return s.check(row, long)
		}
	}
	if err == io.EOF {
		err = fmt.Errorf("the array is not closed after %d elements: the file is cut off", s.element)
	}
	return rawRow{}, s.fail(err)
}

// readElement reads up to the end of an element, which is where brackets are level again, or before a comma or a
// closing bracket.
func (s *scanner) readElement() (long bool, err error) {
	s.buf = s.buf[:0]
	depth, quoted, escaped := 0, false, false
	for {
		c, err := s.r.ReadByte()
		if err != nil {
			return long, err
		}
		closes := false
		switch {
		case quoted:
			quoted = escaped || c != '"'
			escaped = !escaped && c == '\\'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']' || c == '}'):
			return long, s.r.UnreadByte()
		case c == '}' || c == ']':
			depth--
			closes = depth == 0
		}
		if c == '\n' {
			s.line++
		}
		if long = long || len(s.buf) >= maxRowBytes; !long {
			s.buf = append(s.buf, c)
		}
		if closes {
			return long, nil
		}
	}
}

func (s *scanner) endOfArray() error {
	s.state = atEnd
	c, err := s.skipSpace()
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return s.fail(err)
	}
	return s.fail(fmt.Errorf("expected the end of the file after the array, got %q", c))
}

// check refuses what no row may be.
func (s *scanner) check(row rawRow, long bool) (rawRow, error) {
	if long {
		return rawRow{}, &rowError{row.place, fmt.Errorf("the row has more than %d bytes", maxRowBytes)}
	}
	if !utf8.Valid(row.json) {
		return rawRow{}, &rowError{row.place, fmt.Errorf("invalid UTF-8 at byte %d of the row", invalidAt(row.json))}
	}
	return row, nil
}

func invalidAt(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(b)
}
