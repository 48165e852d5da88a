// Package strictjson reads JSON files that come from strangers. It accepts RFC 8259 and nothing else: valid UTF-8, no
// key twice in an object, no lone surrogates, limited nesting, nothing after the value. Keys are case-sensitive, numbers
// keep the digits of the file, and each error says line and byte.
//
// What a Reader allocates is what it returns, and MaxKeys keys of each object that it is inside of. Parse allocates at
// most 120 bytes for each byte of the text, and gives up after MaxValues values: a quarter of a GiB, and the strings.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deeply objects and arrays may be nested.
const MaxDepth = 64

// MaxKeys is how many keys an object may have. Those of a vocabulary are a quarter of that.
const MaxKeys = 1 << 20

// MaxValues is how many values Value and Parse read of one text. Those of an index of a large model are a tenth of that.
const MaxValues = 1 << 20

// Error is a place in the input and what is wrong there.
type Error struct {
	Line   int // from 1
	Offset int // bytes before the place, from 0
	Msg    string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d, byte %d: %s", e.Line, e.Offset, e.Msg) }

// Reader walks through one JSON text.
type Reader struct {
	data  []byte
	pos   int
	depth int
	made  int // values that Value has made
}

// NewReader returns a Reader at the start of data. It fails if data is not UTF-8.
func NewReader(data []byte) (*Reader, error) {
	r := &Reader{data: data}
	for i := 0; i < len(data); {
		if data[i] < utf8.RuneSelf {
			i++
			continue
		}
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			return nil, r.errorAt(i, "not valid UTF-8")
		}
		i += n
	}
	return r, nil
}

// Parse reads a whole text into nil, bool, json.Number, string, []any and *Object.
func Parse(data []byte) (any, error) {
	r, err := NewReader(data)
	if err != nil {
		return nil, err
	}
	v, err := r.Value()
	if err != nil {
		return nil, err
	}
	return v, r.End()
}

// ParseObject is Parse for a text that must be an object.
func ParseObject(data []byte) (*Object, error) {
	v, err := Parse(data)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*Object)
	if !ok {
		return nil, fmt.Errorf("want a JSON object, got %s", Kind(v))
	}
	return o, nil
}

// ReadObject is ParseObject for a file of at most limit bytes; errors name the file.
func ReadObject(path string, limit int64) (*Object, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are plausible", path, info.Size(), limit)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte("version https://git-lfs")) {
		return nil, fmt.Errorf("%s: this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull", path)
	}
	o, err := ParseObject(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// Object is a JSON object in the order of the file.
type Object struct {
	Keys   []string
	values map[string]any
}

// Get returns the value of key.
func (o *Object) Get(key string) (any, bool) {
	v, ok := o.values[key]
	return v, ok
}

// NewObject returns an object without keys.
func NewObject() *Object { return &Object{values: map[string]any{}} }

// Set gives key a value; a new key goes to the end.
func (o *Object) Set(key string, value any) {
	if _, ok := o.values[key]; !ok {
		o.Keys = append(o.Keys, key)
	}
	o.values[key] = value
}

// Kind names the JSON type of a value that Parse returned, for messages.
func Kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return "the number " + short(string(v))
	case string:
		if len(v) > 40 {
			return "a string"
		}
		return strconv.Quote(v)
	case []any:
		return "an array"
	case *Object:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

// short cuts what a message quotes of the text.
func short(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// Object reads an object. It calls each after every key; each must read the value.
func (r *Reader) Object(each func(key string) error) error {
	var seen map[string]struct{}
	return r.nested('{', '}', func() error {
		at := r.pos
		key, err := r.String()
		if err != nil {
			return err
		}
		if _, dup := seen[key]; dup {
			return r.errorAt(at, fmt.Sprintf("key %q is there twice", short(key)))
		}
		if len(seen) == MaxKeys {
			return r.errorAt(at, fmt.Sprintf("an object of more than %d keys", MaxKeys))
		}
		if seen == nil {
			seen = map[string]struct{}{}
		}
		seen[key] = struct{}{}
		if err := r.expect(':'); err != nil {
			return err
		}
		return each(key)
	})
}

// Array reads an array. It calls each where an element begins; each must read it.
func (r *Reader) Array(each func() error) error { return r.nested('[', ']', each) }

// nested reads what lies between two brackets, with commas between the elements.
func (r *Reader) nested(open, close byte, element func() error) error {
	if err := r.expect(open); err != nil {
		return err
	}
	if r.depth++; r.depth > MaxDepth {
		return r.errorAt(r.pos-1, fmt.Sprintf("nested deeper than %d", MaxDepth))
	}
	defer func() { r.depth-- }()
	if r.peek() == close {
		r.pos++
		return nil
	}
	for {
		r.space()
		if err := element(); err != nil {
			return err
		}
		if r.peek() == close {
			r.pos++
			return nil
		}
		if r.peek() != ',' {
			return r.unexpected(fmt.Sprintf("',' or %q", close))
		}
		r.pos++
	}
}

// Value reads any value.
func (r *Reader) Value() (any, error) {
	if r.made++; r.made > MaxValues {
		return nil, r.Errorf("a text of more than %d values", MaxValues)
	}
	switch c := r.peek(); {
	case c == '{':
		o := NewObject()
		err := r.Object(func(key string) error {
			v, err := r.Value()
			o.Set(key, v)
			return err
		})
		return o, err
	case c == '[':
		a := []any{}
		err := r.Array(func() error {
			v, err := r.Value()
			a = append(a, v)
			return err
		})
		return a, err
	case c == '"':
		return r.String()
	case c == '-' || '0' <= c && c <= '9':
		return r.Number()
	case c == 't':
		return true, r.literal("true")
	case c == 'f':
		return false, r.literal("false")
	case c == 'n':
		return nil, r.literal("null")
	}
	return nil, r.unexpected("a value")
}

// Skip reads any value and forgets it.
func (r *Reader) Skip() error {
	switch r.peek() {
	case '{':
		return r.Object(func(string) error { return r.Skip() })
	case '[':
		return r.Array(r.Skip)
	}
	_, err := r.Value() // a scalar
	r.made--
	return err
}

// Null reports whether a null comes next, and if so reads it.
func (r *Reader) Null() (bool, error) {
	if r.peek() != 'n' {
		return false, nil
	}
	return true, r.literal("null")
}

// String reads a string.
func (r *Reader) String() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	start := r.pos
	var buf []byte // what came before start, once there was an escape
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; {
		case c == '"':
			s := string(append(buf, r.data[start:r.pos]...))
			r.pos++
			return s, nil
		case c < ' ':
			return "", r.errorAt(r.pos, fmt.Sprintf("control character %#02x in a string", c))
		case c == '\\':
			buf = append(buf, r.data[start:r.pos]...)
			c, err := r.escape()
			if err != nil {
				return "", err
			}
			buf = utf8.AppendRune(buf, c)
			start = r.pos
		default:
			r.pos++
		}
	}
	return "", r.errorAt(r.pos, "the text ends inside a string")
}

var escapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads an escape sequence, both halves of a surrogate pair together.
func (r *Reader) escape() (rune, error) {
	at := r.pos
	r.pos++ // the backslash
	if r.pos == len(r.data) {
		return 0, r.errorAt(r.pos, "the text ends inside a string")
	}
	c := r.data[r.pos]
	r.pos++
	if e, ok := escapes[c]; ok {
		return e, nil
	}
	if c != 'u' {
		return 0, r.errorAt(at, fmt.Sprintf("unknown escape \\%c", c))
	}
	hi, ok := r.hex4()
	if !ok {
		return 0, r.errorAt(at, "\\u needs four hexadecimal digits")
	}
	if !utf16.IsSurrogate(hi) {
		return hi, nil
	}
	if r.pos+2 <= len(r.data) && r.data[r.pos] == '\\' && r.data[r.pos+1] == 'u' {
		r.pos += 2
		if lo, ok := r.hex4(); ok {
			if c := utf16.DecodeRune(hi, lo); c != utf8.RuneError {
				return c, nil
			}
		}
	}
	return 0, r.errorAt(at, "lone surrogate")
}

func (r *Reader) hex4() (rune, bool) {
	if r.pos+4 > len(r.data) {
		return 0, false
	}
	var v rune
	for _, c := range r.data[r.pos : r.pos+4] {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			v = v<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	r.pos += 4
	return v, true
}

// Number reads a number as it is written.
func (r *Reader) Number() (json.Number, error) {
	c := r.peek()
	if c != '-' && (c < '0' || c > '9') {
		return "", r.unexpected("a number")
	}
	start := r.pos
	if c == '-' {
		r.pos++
	}
	switch {
	case r.at('0'):
		r.pos++
	case r.digits() == 0:
		return "", r.unexpected("a digit")
	}
	if r.at('.') {
		r.pos++
		if r.digits() == 0 {
			return "", r.unexpected("a digit")
		}
	}
	if r.at('e') || r.at('E') {
		r.pos++
		if r.at('+') || r.at('-') {
			r.pos++
		}
		if r.digits() == 0 {
			return "", r.unexpected("a digit")
		}
	}
	return json.Number(r.data[start:r.pos]), nil
}

// Uint reads an integer from 0 to 2^64 - 1.
func (r *Reader) Uint() (uint64, error) {
	r.space()
	at := r.pos
	n, err := r.Number()
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(string(n), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, r.errorAt(at, fmt.Sprintf("%s does not fit 64 bits", short(string(n))))
	}
	if err != nil {
		return 0, r.errorAt(at, fmt.Sprintf("want a whole number from 0, got %s", short(string(n))))
	}
	return v, nil
}

// End fails if anything but white space is left.
func (r *Reader) End() error {
	if r.space(); r.pos < len(r.data) {
		return r.errorAt(r.pos, "there is more after the end of the value")
	}
	return nil
}

// Errorf returns an error at the place that is read next.
func (r *Reader) Errorf(format string, args ...any) error {
	return r.errorAt(r.pos, fmt.Sprintf(format, args...))
}

func (r *Reader) digits() int {
	start := r.pos
	for r.pos < len(r.data) && '0' <= r.data[r.pos] && r.data[r.pos] <= '9' {
		r.pos++
	}
	return r.pos - start
}

func (r *Reader) at(c byte) bool { return r.pos < len(r.data) && r.data[r.pos] == c }

func (r *Reader) space() {
	for r.pos < len(r.data) {
		switch r.data[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the byte after it, 0 at the end.
func (r *Reader) peek() byte {
	r.space()
	if r.pos == len(r.data) {
		return 0
	}
	return r.data[r.pos]
}

func (r *Reader) expect(c byte) error {
	if r.peek() != c || r.pos == len(r.data) {
		want := fmt.Sprintf("%q", c)
		if c == '"' {
			want = "a string"
		}
		return r.unexpected(want)
	}
	r.pos++
	return nil
}

func (r *Reader) literal(word string) error {
	if len(r.data)-r.pos < len(word) || string(r.data[r.pos:r.pos+len(word)]) != word {
		return r.unexpected("a value")
	}
	r.pos += len(word)
	return nil
}

func (r *Reader) unexpected(want string) error {
	if r.pos >= len(r.data) {
		return r.errorAt(len(r.data), "want "+want+", but the text ends")
	}
	c, _ := utf8.DecodeRune(r.data[r.pos:])
	return r.errorAt(r.pos, fmt.Sprintf("want %s, got %q", want, c))
}

func (r *Reader) errorAt(pos int, msg string) error {
	line := 1
	for _, c := range r.data[:pos] {
		if c == '\n' {
			line++
		}
	}
	return &Error{Line: line, Offset: pos, Msg: msg}
}
