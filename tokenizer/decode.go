package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Stream decodes ids one at a time, as a model makes them. What Next and Flush return adds up to Decode of all ids:
// text is held back while it may still change, above all an unfinished UTF-8 sequence. LLaMA's byte tokens are held
// until a run of them ends, since one bad byte spoils the whole run. A Stream serves one goroutine.
type Stream struct {
	t    *Tokenizer
	skip bool
	out  strings.Builder
	step decodeStep
}

// Stream returns a decoder for one sequence. Special tokens are left out.
func (t *Tokenizer) Stream() *Stream { return t.newStream(true) }

func (t *Tokenizer) newStream(skip bool) *Stream {
	s := &Stream{t: t, skip: skip}
	s.reset()
	return s
}

func (s *Stream) reset() {
	s.out.Reset()
	s.step = &collect{&s.out}
	for i := len(s.t.decoders) - 1; i >= 0; i-- {
		s.step = s.t.decoders[i].start(s.step)
	}
}

// Next takes the next id and returns the text that is certain now, which may be none.
func (s *Stream) Next(id int32) string {
	s.push(id)
	return s.taken()
}

// Flush ends the sequence and returns what was held back. The Stream can then be used for another sequence.
func (s *Stream) Flush() string {
	s.step.end()
	text := s.taken()
	s.reset()
	return text
}

func (s *Stream) push(id int32) {
	if tok, ok := s.t.added.byID[id]; ok {
		if !s.skip || !tok.Special {
			s.step.push(tok.Content, true)
		}
	} else if p, ok := s.t.model.piece(id); ok {
		s.step.push(p, true)
	}
}

func (s *Stream) taken() string {
	text := s.out.String()
	s.out.Reset()
	return text
}

func (t *Tokenizer) decode(ids []int32, skip bool) string {
	s := t.newStream(skip)
	for _, id := range ids {
		s.push(id)
	}
	s.step.end()
	return s.out.String()
}

// decodeStep is one step of decoding. It gets the tokens one after another, each in one or more pieces, and hands
// pieces to the step after it.
type decodeStep interface {
	push(s string, begins bool) // begins: s is the first piece of a token
	end()
}

// decoderSpec makes a step that hands its pieces to next.
type decoderSpec struct {
	start  func(next decodeStep) decodeStep
	parts  bool // hands on tokens in several pieces
	whole  bool // wants each token in one piece
	growth int  // how many times as long it can make a token, 0 for once
}

// inPieces puts a step that joins the pieces of a token before each step that wants whole tokens and may not get them.
func inPieces(specs []decoderSpec) []decoderSpec {
	out := make([]decoderSpec, 0, len(specs))
	parts := false
	for _, s := range specs {
		if parts && s.whole {
			out = append(out, decoderSpec{start: func(n decodeStep) decodeStep { return &joined{next: n} }})
		}
		out = append(out, s)
		parts = parts || s.parts
	}
	return out
}

// collect is the last step: it writes everything down.
type collect struct{ out *strings.Builder }

func (c *collect) push(s string, _ bool) { c.out.WriteString(s) }
func (c *collect) end()                  {}

// spaced puts a space between tokens: what the reference does for a file without a decoder.
type spaced struct {
	next   decodeStep
	behind bool
}

func (d *spaced) push(s string, begins bool) {
	if begins && d.behind {
		d.next.push(" ", true)
	}
	d.behind = true
	d.next.push(s, begins)
}

func (d *spaced) end() { d.next.end() }

// replaced rewrites each piece.
type replaced struct {
	next decodeStep
	rule replace
}

func (d *replaced) push(s string, begins bool) { d.next.push(d.rule.normalize(s, afterText), begins) }
func (d *replaced) end()                       { d.next.end() }

// byteFallback turns runs of <0xHH> tokens into text; a run that is not UTF-8 becomes a replacement character a byte.
type byteFallback struct {
	next decodeStep
	run  []byte
}

func (d *byteFallback) push(s string, begins bool) {
	if b, ok := byteToken(s); ok {
		d.run = append(d.run, b)
		return
	}
	d.flush()
	d.next.push(s, begins)
}

func (d *byteFallback) flush() {
	switch {
	case len(d.run) == 0:
	case utf8.Valid(d.run):
		d.next.push(string(d.run), true)
	default:
		for range d.run {
			d.next.push("\uFFFD", true)
		}
	}
	d.run = d.run[:0]
}

func (d *byteFallback) end() {
	d.flush()
	d.next.end()
}

// byteToken returns the byte that a token such as <0x0A> stands for.
func byteToken(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(s[3:5], 16, 8)
	return byte(b), err == nil
}

// fused makes one token of all.
type fused struct {
	next   decodeStep
	behind bool
}

func (d *fused) push(s string, _ bool) {
	d.next.push(s, !d.behind)
	d.behind = true
}

func (d *fused) end() { d.next.end() }

// joined makes one piece of each token, which it has only when the next one begins.
type joined struct {
	next   decodeStep
	text   strings.Builder
	behind bool
}

func (d *joined) push(s string, begins bool) {
	if begins {
		d.flush()
	}
	d.text.WriteString(s)
	d.behind = true
}

func (d *joined) flush() {
	if d.behind {
		d.next.push(d.text.String(), true)
	}
	d.text.Reset()
	d.behind = false
}

func (d *joined) end() {
	d.flush()
	d.next.end()
}

// strip takes up to start characters off the front of each token and up to stop off its end, where they are content.
type strip struct {
	next        decodeStep
	content     rune
	start, stop int

	left  int // how many may still be taken off the front
	tail  int // how many characters at the end of the token are held back: they are all content
	first bool
}

func (d *strip) push(s string, begins bool) {
	if begins {
		d.endToken()
		d.left, d.first = d.start, true
	}
	for d.left > 0 && s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r != d.content {
			d.left = 0
			break
		}
		s, d.left = s[n:], d.left-1
	}
	body := strings.TrimRight(s, string(d.content))
	marks := (len(s) - len(body)) / utf8.RuneLen(d.content)
	if body != "" {
		d.give(d.tail)
		d.tail = 0
		d.hand(body)
	}
	d.tail += marks
	if d.tail > d.stop {
		d.give(d.tail - d.stop)
		d.tail = d.stop
	}
}

func (d *strip) give(n int) {
	if n > 0 {
		d.hand(strings.Repeat(string(d.content), n))
	}
}

func (d *strip) hand(s string) {
	d.next.push(s, d.first)
	d.first = false
}

// endToken drops what is held back of a token that has ended. A token of which nothing is left is still a token.
func (d *strip) endToken() {
	if d.first {
		d.hand("")
	}
	d.tail = 0
}

func (d *strip) end() {
	d.endToken()
	d.next.end()
}

// byteLevelText turns the characters of all tokens back into bytes and these into text.
type byteLevelText struct {
	next   decodeStep
	bytes  []byte
	behind bool
}

func (d *byteLevelText) push(s string, _ bool) {
	d.bytes = appendSpelled(d.bytes, s)
	text, rest := readUTF8(d.bytes, false)
	d.bytes = append(d.bytes[:0], rest...)
	d.hand(text)
}

func (d *byteLevelText) hand(text string) {
	if text != "" {
		d.next.push(text, !d.behind)
		d.behind = true
	}
}

func (d *byteLevelText) end() {
	text, _ := readUTF8(d.bytes, true)
	d.bytes = d.bytes[:0]
	d.hand(text)
	d.next.end()
}

// appendSpelled appends the bytes that the characters of s stand for; a token with any other character stands for its
// own bytes.
func appendSpelled(dst []byte, s string) []byte {
	from := len(dst)
	for _, r := range s {
		b := byteOf(r)
		if b < 0 {
			return append(dst[:from], s...)
		}
		dst = append(dst, byte(b))
	}
	return dst
}

// spaceMarkText turns marks back into spaces; those of the first token vanish where one was put in front.
type spaceMarkText struct {
	next   decodeStep
	mark   string
	prefix bool
	tokens int
}

func (d *spaceMarkText) push(s string, begins bool) {
	if begins {
		d.tokens++
	}
	by := " "
	if d.prefix && d.tokens <= 1 {
		by = ""
	}
	d.next.push(strings.ReplaceAll(s, d.mark, by), begins)
}

func (d *spaceMarkText) end() { d.next.end() }

// readUTF8 reads b as text, each maximal part of a broken sequence as one replacement character (Unicode 3.9, "U+FFFD
// substitution of maximal subparts"). An unfinished sequence at the end is returned as the rest unless b is all.
func readUTF8(b []byte, all bool) (text string, rest []byte) {
	if utf8.Valid(b) {
		return string(b), nil
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r != utf8.RuneError || n > 1 {
			out.Write(b[:n])
			b = b[n:]
			continue
		}
		n, open := brokenLength(b)
		if open && !all {
			return out.String(), b
		}
		out.WriteRune(utf8.RuneError)
		b = b[n:]
	}
	return out.String(), nil
}

// brokenLength returns the length of the broken sequence at the start of b, and whether more bytes could mend it.
func brokenLength(b []byte) (n int, open bool) {
	low, high, size := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		size = 2
	case c >= 0xe0 && c <= 0xef:
		size = 3
	case c >= 0xf0 && c <= 0xf4:
		size = 4
	default:
		return 1, false
	}
	switch b[0] {
	case 0xe0:
		low = 0xa0
	case 0xed:
		high = 0x9f
	case 0xf0:
		low = 0x90
	case 0xf4:
		high = 0x8f
	}
	for n = 1; n < len(b) && n < size; n++ {
		if b[n] < low || b[n] > high {
			return n, false
		}
		low, high = 0x80, 0xbf
	}
	return n, true
}
