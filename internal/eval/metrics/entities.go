package metrics

import (
	"fmt"
	"strings"
)

// Span is an entity: tokens Start to End-1.
type Span struct {
	Type       string
	Start, End int
}

// Mode is how seqeval 1.2.2 reads entities out of tags.
type Mode int

const (
	// Default is conlleval's way: an I whose type is new, or that follows O, begins an entity. Prefixes are B, I, O, E
	// and S.
	Default Mode = iota
	// Strict is mode="strict" with scheme=IOB2: only a B begins an entity. Prefixes are B, I and O.
	Strict
)

// prefixes are those that a mode knows. For others seqeval warns in the default mode, and fails in strict mode.
func (m Mode) prefixes() string {
	if m == Strict {
		return "BIO"
	}
	return "BIOES"
}

// Tag splits a tag such as B-Disease. The type of a tag without one is "_".
func (m Mode) split(tag string) (prefix byte, kind string, err error) {
	if tag == "" || strings.IndexByte(m.prefixes(), tag[0]) < 0 {
		return 0, "", fmt.Errorf("the tag %q does not begin with one of %s", tag, m.prefixes())
	}
	kind = tag[1:]
	if m == Strict {
		kind = strings.Trim(kind, "-")
	} else if i := strings.IndexByte(kind, '-'); i >= 0 {
		kind = kind[i+1:]
	}
	if kind == "" {
		kind = "_"
	}
	return tag[0], kind, nil
}

// Spans appends the entities of a sentence's tags.
func (m Mode) Spans(dst []Span, tags []string) ([]Span, error) {
	prev, prevKind, start := byte('O'), "", 0
	open := false // strict: inside an entity
	for i := 0; i <= len(tags); i++ {
		prefix, kind := byte('O'), "_"
		if i < len(tags) {
			var err error
			if prefix, kind, err = m.split(tags[i]); err != nil {
				return dst, fmt.Errorf("token %d: %w", i+1, err)
			}
		}
		same := kind == prevKind
		ends := endsDefault(prev, prefix, same)
		begins := beginsDefault(prev, prefix, same)
		if m == Strict {
			ends = open && !(prefix == 'I' && same)
			begins = prefix == 'B'
		}
		if ends {
			dst = append(dst, Span{prevKind, start, i})
			open = false
		}
		if begins {
			start, open = i, true
		}
		prev, prevKind = prefix, kind
	}
	return dst, nil
}

// endsDefault reports whether an entity that goes up to prev ends before a tag with this prefix.
func endsDefault(prev, prefix byte, same bool) bool {
	switch prev {
	case 'O':
		return false
	case 'E', 'S':
		return true
	}
	return !same || prefix == 'B' || prefix == 'S' || prefix == 'O'
}

// beginsDefault reports whether a tag with this prefix begins an entity.
func beginsDefault(prev, prefix byte, same bool) bool {
	switch prefix {
	case 'O':
		return false
	case 'B', 'S':
		return true
	}
	return !same || prev == 'E' || prev == 'S' || prev == 'O'
}

// countSpans adds the entities of a sentence to the counts of their types.
func countSpans(counts map[string]Counts, gold, predicted []Span) {
	for _, s := range gold {
		c := counts[s.Type]
		c.Gold++
		counts[s.Type] = c
	}
	at := 0
	for _, s := range predicted {
		for at < len(gold) && gold[at].Start < s.Start {
			at++
		}
		c := counts[s.Type]
		c.Predicted++
		if at < len(gold) && gold[at] == s {
			c.Hits++
		}
		counts[s.Type] = c
	}
}

// Entities is the report of entities in the tags of sentences: seqeval's classification_report.
func (m Mode) Entities(gold, predicted [][]string) (Report, error) {
	if err := sameLength(len(gold), len(predicted)); err != nil {
		return Report{}, err
	}
	counts := map[string]Counts{}
	var g, p []Span
	var problems problems
	for i := range gold {
		if len(gold[i]) != len(predicted[i]) {
			problems.add("sentence %d: %d gold tags, %d predicted", i+1, len(gold[i]), len(predicted[i]))
			continue
		}
		var errG, errP error
		g, errG = m.Spans(g[:0], gold[i])
		p, errP = m.Spans(p[:0], predicted[i])
		if errG != nil {
			problems.add("sentence %d, gold: %w", i+1, errG)
		}
		if errP != nil {
			problems.add("sentence %d, predicted: %w", i+1, errP)
		}
		countSpans(counts, g, p)
	}
	if err := problems.err(); err != nil {
		return Report{}, err
	}
	return newReport(counts), nil
}
