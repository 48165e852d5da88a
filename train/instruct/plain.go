package instruct

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/tokenizer"
)

// What a template writes of a conversation is told from what it writes by itself by rendering twice: once as it is, and
// once with other characters, which occur nowhere else, in place of those that a special token could begin or end with.
// Where these come out is what the conversation says. The second text, put back, must be the first one: otherwise the
// template has looked into what was said, and the row is refused.

// masker knows which characters need stand-ins: those that special tokens begin or end with, and those that a normaliser
// may make such characters of; save those of simple tags that no special token has. Templates look for such tags
// ("</think>"), and they can be left as they are: a special token that touched one would have all of it in itself.
type masker struct {
	ends map[rune]bool   // characters that special tokens begin or end with
	tags map[string]bool // tags within special tokens, in lower case; nil: all tags need stand-ins
}

func newMasker(special []string) *masker {
	m := &masker{map[rune]bool{}, map[string]bool{}}
	all := false
	for _, s := range special {
		first, _ := utf8.DecodeRuneInString(s)
		last, _ := utf8.DecodeLastRuneInString(s)
		for _, c := range []rune{first, last} {
			m.ends[c], m.ends[unicode.ToLower(c)], m.ends[unicode.ToUpper(c)] = true, true, true
		}
		all = all || first == '>' || last == '<' || first == '<' && !strings.Contains(s, ">") || last == '>' && !strings.Contains(s, "<")
		for i, c := range s {
			if c == '<' {
				m.tags[strings.ToLower(s[i:i+tag(s[i:])])] = true
			}
		}
	}
	if all {
		m.tags = nil
	}
	return m
}

// needs reports whether a character needs a stand-in.
func (m *masker) needs(c rune) bool {
	if c < utf8.RuneSelf || m.ends[c] {
		return m.ends[c]
	}
	parts := norm.NFKD.PropertiesString(string(c)).Decomposition()
	return len(parts) > 0 && strings.ContainsFunc(string(parts), func(c rune) bool { return m.ends[c] })
}

// maxTag is the longest tag in bytes.
const maxTag = 64

// tag returns the length of the tag that s, which begins with '<', begins with; 0 for none.
func tag(s string) int {
	n := strings.IndexAny(s[1:min(len(s), maxTag)], "<>") + 1
	if n == 0 || s[n] == '<' {
		return 0
	}
	return n + 1
}

// stays reports whether a tag needs no stand-ins. No normaliser makes another tag of one with nothing but ASCII letters,
// digits and a few signs in it, but for the case of its letters.
func (m *masker) stays(tag string) bool {
	other := func(c rune) bool {
		return c >= utf8.RuneSelf || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("/_-", c)
	}
	return m.tags != nil && !strings.ContainsFunc(tag[1:len(tag)-1], other) && !m.tags[strings.ToLower(tag)]
}

// The stand-ins are taken from a plane of private use that no text needs.
const (
	firstStandIn = 0xF0000
	lastStandIn  = 0xFFFFD
)

// standIns are the stand-ins of one conversation.
type standIns struct {
	*masker
	of   map[rune]rune // characters to stand-ins
	back map[rune]rune
}

// noticed are the characters of a conversation that count: those that need stand-ins, and those that are some.
type noticed struct{ needed, used map[rune]bool }

// markPlain finds out what of the spans comes of the messages.
func (w rendering) markPlain(spans []Span, messages, tools []*strictjson.Object, t ChatTemplate) error {
	seen := noticed{map[rune]bool{}, map[rune]bool{}}
	for _, list := range [][]*strictjson.Object{messages, tools} {
		for _, o := range list {
			eachText(o, func(s string) { w.tags.notice(s, seen) })
		}
	}
	if len(seen.needed) == 0 {
		return nil
	}
	w.tags.notice(text(spans), noticed{map[rune]bool{}, seen.used})
	in, err := w.tags.standIns(seen)
	if err != nil {
		return err
	}
	turns, err := w.turns(in.maskAll(messages), in.maskAll(tools), t)
	if err != nil || len(turns) != len(spans) {
		return errMixed
	}
	for i, t := range turns {
		text, plain := in.unmask(t.Text)
		if text != spans[i].Text {
			return errMixed
		}
		spans[i].Plain = plain
	}
	return nil
}

var errMixed = errors.New("the chat template looks into what is said, so that special tokens in it cannot be told from the template's own: " +
	"take them out, or let them be special tokens")

// notice notes the characters of a text that count.
func (m *masker) notice(text string, seen noticed) {
	for _, c := range text {
		if c >= firstStandIn && c <= lastStandIn {
			seen.used[c] = true
		} else if m.needs(c) {
			seen.needed[c] = true
		}
	}
}

// eachText calls do with all texts of a value, keys among them.
func eachText(v any, do func(string)) {
	switch v := v.(type) {
	case string:
		do(v)
	case []any:
		for _, e := range v {
			eachText(e, do)
		}
	case *strictjson.Object:
		for _, key := range v.Keys {
			do(key)
			e, _ := v.Get(key)
			eachText(e, do)
		}
	}
}

// standIns chooses stand-ins that are not used.
func (m *masker) standIns(seen noticed) (*standIns, error) {
	s := &standIns{m, map[rune]rune{}, map[rune]rune{}}
	next := rune(firstStandIn)
	for _, c := range slices.Sorted(maps.Keys(seen.needed)) {
		for seen.used[next] {
			next++
		}
		if next > lastStandIn {
			return nil, errors.New("the conversation has nearly all characters of private use, so that special tokens in it cannot be found")
		}
		s.of[c], s.back[next] = next, c
		next++
	}
	return s, nil
}

func (s *standIns) maskAll(objects []*strictjson.Object) []*strictjson.Object {
	if objects == nil {
		return nil
	}
	out := make([]*strictjson.Object, len(objects))
	for i, o := range objects {
		out[i] = s.value(o).(*strictjson.Object)
	}
	return out
}

// value masks the texts of a value. Of names only what no name has is masked, since templates go by them: those of
// roles, of types, and keys.
func (s *standIns) value(v any) any {
	switch v := v.(type) {
	case string:
		return s.mask(v, false)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = s.value(e)
		}
		return out
	case *strictjson.Object:
		out := strictjson.NewObject()
		for _, key := range v.Keys {
			e, _ := v.Get(key)
			if name, ok := e.(string); ok && (key == "role" || key == "type") {
				e = s.mask(name, true)
			} else {
				e = s.value(e)
			}
			out.Set(s.mask(key, true), e)
		}
		return out
	}
	return v
}

// mask writes a text with stand-ins; letters and digits of a name stay.
func (s *standIns) mask(text string, name bool) string {
	var b strings.Builder
	last := -1 // where the tag that stays ends
	for i, c := range text {
		if c == '<' {
			if n := tag(text[i:]); n > 0 && s.stays(text[i:i+n]) {
				last = i + n - 1
			}
		}
		in, ok := s.of[c]
		if !ok || c == '<' && i < last || c == '>' && i == last || name && (unicode.IsLetter(c) || unicode.IsDigit(c)) {
			in = c
		}
		b.WriteRune(in)
	}
	return b.String()
}

// unmask puts back what the stand-ins stand for and says where they are.
func (s *standIns) unmask(text string) (string, []tokenizer.Range) {
	var b strings.Builder
	var plain []tokenizer.Range
	for _, c := range text {
		was, ok := s.back[c]
		if !ok {
			b.WriteRune(c)
			continue
		}
		from := b.Len()
		b.WriteRune(was)
		if n := len(plain); n > 0 && plain[n-1].To == from {
			plain[n-1].To = b.Len()
		} else {
			plain = append(plain, tokenizer.Range{From: from, To: b.Len()})
		}
	}
	return b.String(), plain
}
