// Package jsoncut cuts a JSON file into records, one in memory at a time: lines, the elements of an array, or the members
// of an object. It knows just enough of JSON to find where a value ends; what a record says is the caller's to parse.
package jsoncut

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/strictjson"
)

// MaxRecord bounds the memory that one record may take, in bytes of the file; no text of a corpus comes near it.
const MaxRecord = 64 << 20

// Place is where a record stands.
type Place struct {
	File    string
	Line    int // from 1, where the record begins; 0 where a file has no lines
	Element int // index in a JSON array or object from 0; -1 in lines
}

func (p Place) String() string {
	switch {
	case p.Line == 0:
		return fmt.Sprintf("%s: row %d", p.File, p.Element)
	case p.Element < 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d (element %d)", p.File, p.Line, p.Element)
}

// Error is a bad record; the records after it can be read.
type Error struct {
	Place
	Err error
}

func (e *Error) Error() string { return e.Place.String() + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Record is the JSON of one record, without white space around it, in UTF-8. The bytes are valid until the next call of
// Next.
type Record struct {
	Place
	Key  string // of a member
	JSON []byte
}

// Shape says where the records of a file are that begins with a brace. The zero Shape is lines.
type Shape struct {
	Under string // in the array that the object has under this key
	Keyed bool   // the object's values, each named by its key
}

// Cutter cuts one file.
type Cutter struct {
	name    string
	r       *bufio.Reader
	shape   Shape
	loose   bool // lines may be anything
	buf     []byte
	line    int // of the next byte
	element int // index of the next one
	state   state
	inside  bool // of an array that is itself in an object
}

type state uint8

const (
	atStart state = iota
	inLines
	inArray // before the first element
	afterElement
	inObject // before the first member
	afterMember
	atEnd
)

// New is a cutter of the file that r reads, which must begin with a bracket or a brace. It must be text (see Text); name
// stands for it in messages.
func New(name string, r *bufio.Reader, shape Shape) *Cutter {
	return &Cutter{name: name, r: r, shape: shape, line: 1}
}

// NewLoose is a cutter of a file of lines or an array that passes on lines that cannot be JSON, for the caller to count.
func NewLoose(name string, r *bufio.Reader) *Cutter {
	return &Cutter{name: name, r: r, loose: true, line: 1}
}

// Next returns the next record; io.EOF after the last one. After an *Error the cutter goes on with the record after it;
// other errors are the file's.
func (c *Cutter) Next() (Record, error) {
	if c.state == atStart {
		if err := c.start(); err != nil {
			return Record{}, err
		}
	}
	switch c.state {
	case inLines:
		return c.nextLine()
	case inArray, afterElement:
		return c.nextElement()
	case inObject, afterMember:
		return c.nextMember()
	}
	return Record{}, io.EOF
}

// start tells what the file is by its first byte.
func (c *Cutter) start() error {
	b, err := c.skipSpace()
	if err == io.EOF {
		c.state = atEnd
		return nil
	}
	if err != nil {
		return c.fail(err)
	}
	switch {
	case b == '[':
		c.state = inArray
		return nil
	case b == '{' && c.shape.Keyed:
		c.state = inObject
		return nil
	case b == '{' && c.shape.Under != "":
		return c.enter()
	case b == '{' || c.loose:
		c.state = inLines
		return c.r.UnreadByte()
	}
	return c.fail(fmt.Errorf("expected JSON, which begins with [ or {, got %q; CSV and TSV are told by the end of the name", b))
}

// enter goes to the array that the file's object has under shape.Under.
func (c *Cutter) enter() error {
	for first := true; ; first = false {
		key, err := c.member(first)
		if err == io.EOF {
			return c.fail(fmt.Errorf("the object has no key %q", c.shape.Under))
		}
		if err != nil {
			return c.fail(err)
		}
		if key != c.shape.Under {
			if _, err := c.value(false); err != nil {
				return c.fail(cutOff(err, "inside an object"))
			}
			continue
		}
		b, err := c.skipSpace()
		if err != nil {
			return c.fail(cutOff(err, "inside an object"))
		}
		if b != '[' {
			return c.fail(fmt.Errorf("expected an array under the key %q, got %q", key, b))
		}
		c.state, c.inside = inArray, true
		return nil
	}
}

// member reads up to the value of the next member of an object; io.EOF where the object ends.
func (c *Cutter) member(first bool) (string, error) {
	b, err := c.skipSpace()
	if err == nil && b == '}' {
		return "", io.EOF
	}
	if err == nil && !first {
		if b != ',' {
			return "", fmt.Errorf("expected a comma or the end of the object, got %q", b)
		}
		b, err = c.skipSpace()
	}
	if err != nil {
		return "", cutOff(err, "inside an object")
	}
	if b != '"' {
		return "", fmt.Errorf("expected a key in quotes, got %q", b)
	}
	c.r.UnreadByte()
	long, err := c.quoted()
	if err != nil {
		return "", cutOff(err, "inside a key")
	}
	if long {
		return "", fmt.Errorf("a key of more than %d bytes", MaxRecord)
	}
	v, err := strictjson.Parse(c.buf)
	if err != nil {
		return "", fmt.Errorf("a key: %w", err)
	}
	if b, err = c.skipSpace(); err != nil {
		return "", cutOff(err, "inside an object")
	}
	if b != ':' {
		return "", fmt.Errorf("expected a colon after the key, got %q", b)
	}
	if _, err = c.skipSpace(); err != nil {
		return "", cutOff(err, "inside an object")
	}
	return v.(string), c.r.UnreadByte()
}

// cutOff tells the end of a file where there must be more.
func cutOff(err error, where string) error {
	if err == io.EOF {
		return fmt.Errorf("the file ends %s: it is cut off", where)
	}
	return err
}

// skipSpace returns the next byte that is not white space.
func (c *Cutter) skipSpace() (byte, error) {
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, err
		}
		switch b {
		case '\n':
			c.line++
		case ' ', '\t', '\r':
		default:
			return b, nil
		}
	}
}

func (c *Cutter) fail(err error) error {
	c.state = atEnd
	return fmt.Errorf("%s:%d: %w", c.name, c.line, err)
}

func (c *Cutter) nextLine() (Record, error) {
	for {
		at := Place{c.name, c.line, -1}
		c.buf = c.buf[:0]
		long, last := false, false
		for {
			part, err := c.r.ReadSlice('\n')
			if long = long || len(c.buf)+len(part) > MaxRecord; !long {
				c.buf = append(c.buf, part...)
			}
			if err == nil {
				c.line++
				break
			}
			if err == io.EOF {
				last = true
				break
			}
			if err != bufio.ErrBufferFull {
				return Record{}, c.fail(err)
			}
		}
		if last {
			c.state = atEnd
		}
		p := Record{at, "", bytes.TrimSpace(c.buf)}
		if long || len(p.JSON) > 0 {
			return c.check(p, long)
		}
		if last {
			return Record{}, io.EOF
		}
	}
}

func (c *Cutter) nextElement() (Record, error) {
	b, err := c.skipSpace()
	if err == nil && b == ',' && c.state == afterElement {
		if b, err = c.skipSpace(); err == nil && b == ']' {
			return Record{}, c.fail(errors.New("expected an element after the comma, got the end of the array"))
		}
	} else if err == nil && b != ']' && c.state == afterElement {
		return Record{}, c.fail(fmt.Errorf("expected a comma or the end of the array after element %d, got %q", c.element-1, b))
	}
	if err == nil && b == ']' {
		return Record{}, c.endOfArray()
	}
	if err == nil && b == ',' {
		return Record{}, c.fail(fmt.Errorf("expected element %d of the array, got a comma", c.element))
	}
	if err != nil {
		return Record{}, c.fail(cutOff(err, fmt.Sprintf("inside an array, after %d elements", c.element)))
	}
	c.r.UnreadByte()
	c.state = afterElement
	return c.take("")
}

func (c *Cutter) nextMember() (Record, error) {
	key, err := c.member(c.state == inObject)
	if err == io.EOF {
		return Record{}, c.endOfFile()
	}
	if err != nil {
		return Record{}, c.fail(err)
	}
	c.state = afterMember
	return c.take(key)
}

// take reads the value that begins at the next byte.
func (c *Cutter) take(key string) (Record, error) {
	p := Record{Place: Place{c.name, c.line, c.element}, Key: key}
	c.element++
	long, err := c.value(true)
	if err != nil {
		return Record{}, c.fail(cutOff(err, fmt.Sprintf("inside element %d", c.element-1)))
	}
	p.JSON = bytes.TrimSpace(c.buf)
	return c.check(p, long)
}

// value reads up to the end of a value, which is where brackets are level again, or before a comma or a closing bracket.
// Where keep is false the value is passed over.
func (c *Cutter) value(keep bool) (long bool, err error) {
	c.buf = c.buf[:0]
	for depth := 0; ; {
		b, err := c.r.ReadByte()
		if err != nil {
			return long, err
		}
		closes := false
		switch {
		case b == '"':
			c.r.UnreadByte()
			more, err := c.text(keep && !long)
			if err != nil {
				return long, err
			}
			long = long || more
			continue
		case b == '{' || b == '[':
			depth++
		case depth == 0 && (b == ',' || b == ']' || b == '}'):
			return long, c.r.UnreadByte()
		case b == '}' || b == ']':
			depth--
			closes = depth == 0
		case b == '\n':
			c.line++
		}
		if long = long || len(c.buf) >= MaxRecord; !long && keep {
			c.buf = append(c.buf, b)
		}
		if closes {
			return long, nil
		}
	}
}

// quoted reads a string into an empty buf.
func (c *Cutter) quoted() (long bool, err error) {
	c.buf = c.buf[:0]
	return c.text(true)
}

// text reads a string with its quotes, and appends it to buf where keep is true and there is room.
func (c *Cutter) text(keep bool) (long bool, err error) {
	for i, escaped := 0, false; ; i++ {
		b, err := c.r.ReadByte()
		if err != nil {
			return long, err
		}
		if b == '\n' {
			c.line++ // not allowed, but the lines after it keep their numbers
		}
		if long = long || len(c.buf) >= MaxRecord; !long && keep {
			c.buf = append(c.buf, b)
		}
		if i > 0 && b == '"' && !escaped {
			return long, nil
		}
		escaped = !escaped && b == '\\'
	}
}

// endOfArray reads what follows the array of records.
func (c *Cutter) endOfArray() error {
	if !c.inside {
		return c.endOfFile()
	}
	for {
		key, err := c.member(false)
		if err == io.EOF {
			return c.endOfFile()
		}
		if err == nil && key == c.shape.Under {
			err = fmt.Errorf("the key %q is there twice", key)
		}
		if err == nil {
			if _, err = c.value(false); err != nil {
				err = cutOff(err, "inside an object")
			}
		}
		if err != nil {
			return c.fail(err)
		}
	}
}

func (c *Cutter) endOfFile() error {
	b, err := c.skipSpace()
	c.state = atEnd
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return c.fail(err)
	}
	return c.fail(fmt.Errorf("expected the end of the file, got %q", b))
}

// check refuses what no record may be.
func (c *Cutter) check(p Record, long bool) (Record, error) {
	if long {
		return Record{}, &Error{p.Place, fmt.Errorf("the row has more than %d bytes", MaxRecord)}
	}
	if i := InvalidAt(p.JSON); i >= 0 {
		return Record{}, &Error{p.Place, fmt.Errorf("invalid UTF-8 at byte %d of the row", i)}
	}
	return p, nil
}

// InvalidAt is where the first byte is that is not UTF-8, or -1.
func InvalidAt(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
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
	{"PK\x03\x04", "the file is a zip archive (or a spreadsheet); unpack it (or export it as text) first"},
	{"PAR1", "the file is Parquet; export it as JSON Lines first"},
	{"ARRO", "the file is Arrow; export it as JSON Lines first"},
	{"version https://git-lfs", "this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"},
}

// Text passes over a byte order mark. What is no text in UTF-8 by its first bytes is an error, which does not name the
// file.
func Text(r *bufio.Reader) error {
	head, err := r.Peek(32)
	if err != nil && err != io.EOF {
		return err
	}
	for _, f := range foreign {
		if bytes.HasPrefix(head, []byte(f.begins)) {
			return errors.New(f.is)
		}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return errors.New("the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8")
	}
	if bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
		_, err = r.Discard(3)
		return err
	}
	return nil
}
