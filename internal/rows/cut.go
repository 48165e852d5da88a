package rows

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/biolora/biolora/internal/strictjson"
)

// piece is the JSON of one record. The bytes are valid until the next call of next.
type piece struct {
	Place
	key  string
	json []byte
}

// cutter cuts a JSON file into records, one in memory at a time: lines, the elements of an array, or the members of an
// object. It knows just enough of JSON to find where a value ends.
type cutter struct {
	name    string
	r       *bufio.Reader
	shape   Shape
	buf     []byte
	line    int // of the next byte
	element int // index of the next one
	state   cutState
	inside  bool // of an array that is itself in an object
}

type cutState uint8

const (
	atStart cutState = iota
	inLines
	inArray // before the first element
	afterElement
	inObject // before the first member
	afterMember
	atEnd
)

func newCutter(name string, r *bufio.Reader, shape Shape) *cutter {
	return &cutter{name: name, r: r, shape: shape, line: 1}
}

// next returns the next record; io.EOF after the last one. After an *Error the cutter goes on with the record after it;
// other errors are the file's.
func (c *cutter) next() (piece, error) {
	if c.state == atStart {
		if err := c.start(); err != nil {
			return piece{}, err
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
	return piece{}, io.EOF
}

// start tells what the file is by its first byte.
func (c *cutter) start() error {
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
	case b == '{':
		c.state = inLines
		return c.r.UnreadByte()
	}
	return c.fail(fmt.Errorf("expected JSON, which begins with [ or {, got %q; CSV and TSV are told by the end of the name", b))
}

// enter goes to the array that the file's object has under shape.Under.
func (c *cutter) enter() error {
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
func (c *cutter) member(first bool) (string, error) {
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
		return "", fmt.Errorf("a key of more than %d bytes", maxRecord)
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
func (c *cutter) skipSpace() (byte, error) {
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

func (c *cutter) fail(err error) error {
	c.state = atEnd
	return fmt.Errorf("%s:%d: %w", c.name, c.line, err)
}

func (c *cutter) nextLine() (piece, error) {
	for {
		at := Place{c.name, c.line, -1}
		c.buf = c.buf[:0]
		long, last := false, false
		for {
			part, err := c.r.ReadSlice('\n')
			if long = long || len(c.buf)+len(part) > maxRecord; !long {
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
				return piece{}, c.fail(err)
			}
		}
		if last {
			c.state = atEnd
		}
		p := piece{at, "", bytes.TrimSpace(c.buf)}
		if long || len(p.json) > 0 {
			return c.check(p, long)
		}
		if last {
			return piece{}, io.EOF
		}
	}
}

func (c *cutter) nextElement() (piece, error) {
	b, err := c.skipSpace()
	if err == nil && b == ',' && c.state == afterElement {
		if b, err = c.skipSpace(); err == nil && b == ']' {
			return piece{}, c.fail(errors.New("expected an element after the comma, got the end of the array"))
		}
	} else if err == nil && b != ']' && c.state == afterElement {
		return piece{}, c.fail(fmt.Errorf("expected a comma or the end of the array after element %d, got %q", c.element-1, b))
	}
	if err == nil && b == ']' {
		return piece{}, c.endOfArray()
	}
	if err == nil && b == ',' {
		return piece{}, c.fail(fmt.Errorf("expected element %d of the array, got a comma", c.element))
	}
	if err != nil {
		return piece{}, c.fail(cutOff(err, fmt.Sprintf("inside an array, after %d elements", c.element)))
	}
	c.r.UnreadByte()
	c.state = afterElement
	return c.take("")
}

func (c *cutter) nextMember() (piece, error) {
	key, err := c.member(c.state == inObject)
	if err == io.EOF {
		return piece{}, c.endOfFile()
	}
	if err != nil {
		return piece{}, c.fail(err)
	}
	c.state = afterMember
	return c.take(key)
}

// take reads the value that begins at the next byte.
func (c *cutter) take(key string) (piece, error) {
	p := piece{Place: Place{c.name, c.line, c.element}, key: key}
	c.element++
	long, err := c.value(true)
	if err != nil {
		return piece{}, c.fail(cutOff(err, fmt.Sprintf("inside element %d", c.element-1)))
	}
	p.json = bytes.TrimSpace(c.buf)
	return c.check(p, long)
}

// value reads up to the end of a value, which is where brackets are level again, or before a comma or a closing bracket.
// Where keep is false the value is passed over.
func (c *cutter) value(keep bool) (long bool, err error) {
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
		if long = long || len(c.buf) >= maxRecord; !long && keep {
			c.buf = append(c.buf, b)
		}
		if closes {
			return long, nil
		}
	}
}

// quoted reads a string into an empty buf.
func (c *cutter) quoted() (long bool, err error) {
	c.buf = c.buf[:0]
	return c.text(true)
}

// text reads a string with its quotes, and appends it to buf where keep is true and there is room.
func (c *cutter) text(keep bool) (long bool, err error) {
	for i, escaped := 0, false; ; i++ {
		b, err := c.r.ReadByte()
		if err != nil {
			return long, err
		}
		if b == '\n' {
			c.line++ // not allowed, but the lines after it keep their numbers
		}
		if long = long || len(c.buf) >= maxRecord; !long && keep {
			c.buf = append(c.buf, b)
		}
		if i > 0 && b == '"' && !escaped {
			return long, nil
		}
		escaped = !escaped && b == '\\'
	}
}

// endOfArray reads what follows the array of records.
func (c *cutter) endOfArray() error {
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

func (c *cutter) endOfFile() error {
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
func (c *cutter) check(p piece, long bool) (piece, error) {
	if long {
		return piece{}, &Error{p.Place, fmt.Errorf("the row has more than %d bytes", maxRecord)}
	}
	return p, nil
}
