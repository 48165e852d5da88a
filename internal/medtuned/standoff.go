package medtuned

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/rows"
)

// fileFunc yields the items of one file. It is false where the sequence ends.
type fileFunc func(ctx context.Context, file string, task *Task, skip skipFunc, yield func(item, error) bool) bool

// byExtension reads files whose name has one of the extensions by the function for it, and others as other does.
func byExtension(other itemsFunc, own map[string]fileFunc) itemsFunc {
	return func(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
		return func(yield func(item, error) bool) {
			for _, file := range files {
				if read := own[strings.ToLower(filepath.Ext(file))]; read != nil {
					if !read(ctx, file, task, skip, yield) {
						return
					}
					if info, err := os.Stat(file); err == nil {
						rows.Advance(ctx, info.Size())
					}
					continue
				}
				for it, err := range other(ctx, []string{file}, task, skip) {
					if !yield(it, err) || err != nil && !isBad(err) {
						return
					}
				}
			}
		}
	}
}

// isBad reports whether an error is one of a record, after which others follow.
func isBad(err error) bool { return errors.As(err, new(*rows.Error)) }

// maxNote is the largest note, or file of what stands in one, in bytes.
const maxNote = 1 << 22

// readText reads a small file of UTF-8. A byte order mark is left out.
func readText(file string) (string, error) {
	text, err := regular.ReadFile(file, maxNote)
	if err != nil {
		return "", err
	}
	text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	if bytes.IndexByte(text, 0) >= 0 {
		return "", fmt.Errorf("%s: a zero byte: the file is no text in UTF-8", file)
	}
	if !utf8.Valid(text) {
		for i, line := range bytes.Split(text, []byte("\n")) {
			if !utf8.Valid(line) {
				return "", fmt.Errorf("%s:%d: invalid UTF-8", file, i+1)
			}
		}
	}
	return string(text), nil
}

// beside finds the file that belongs to another one: of the same name with another extension, in the same folder or in
// the one of that name beside it.
func beside(file, folder, extension string) (string, error) {
	name, dir := stem(file)+extension, filepath.Dir(file)
	places := []string{filepath.Join(dir, name), filepath.Join(dir, "..", folder, name)}
	for _, p := range places {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: there is neither %s nor %s", file, places[0], places[1])
}

// word is a word of a line, and where it is in the line, in runes.
type word struct {
	text     string
	from, to int
}

// words are what white space separates. A line that begins with white space has an empty word there: the annotations of
// i2b2 count it.
func words(line string) (all []word) {
	if first, _ := utf8.DecodeRuneInString(line); unicode.IsSpace(first) {
		all = append(all, word{})
	}
	at, begin := 0, -1
	var b strings.Builder
	flush := func() {
		if begin >= 0 {
			all = append(all, word{b.String(), begin, at})
			b.Reset()
			begin = -1
		}
	}
	for _, r := range line {
		switch {
		case unicode.IsSpace(r):
			flush()
		case begin < 0:
			begin = at
			fallthrough
		default:
			b.WriteRune(r)
		}
		at++
	}
	flush()
	return all
}

// sentence joins words.
func sentence(all []word) string {
	var texts []string
	for _, w := range all {
		if w.text != "" {
			texts = append(texts, w.text)
		}
	}
	return strings.Join(texts, " ")
}

// mention is something that stands in a line of a note: the words from from up to to.
type mention struct {
	line, from, to int // the line from 0
	kind           string
	place          rows.Place // where that is said
}

func (m *mention) overlaps(o *mention) bool {
	return m.line == o.line && m.from < o.to && o.from < m.to
}

// inOrder sorts mentions as they stand in the text, the longer of two that begin together first.
func inOrder(all []mention) {
	slices.SortStableFunc(all, func(a, b mention) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), strings.Compare(a.kind, b.kind))
	})
}

// standoff is a note and what stands in it.
type standoff struct {
	file     string // that lines are counted in
	first    int    // number of the first line there
	lines    []string
	mentions []mention
	// bad is what is wrong, by the line that a row would be made of. What is of no line that is known is under -1: it may
	// be missing anywhere, so that no row of the note is right for certain.
	bad map[int][]error
}

// lost reports whether no rows can be made of a note, and then tells why. ok is false where the sequence ends.
func (s *standoff) lost(skip skipFunc, yield func(item, error) bool) (lost, ok bool) {
	if s.bad[-1] == nil {
		return false, true
	}
	skip(rows.Place{File: s.file, Line: s.first, Element: -1}, "a note in which something has no place that is known")
	return true, s.tell(yield)
}

// tell yields all that is wrong.
func (s *standoff) tell(yield func(item, error) bool) bool {
	for _, line := range slices.Sorted(maps.Keys(s.bad)) {
		for _, err := range s.bad[line] {
			if !yield(item{}, err) {
				return false
			}
		}
	}
	return true
}

func (s *standoff) fail(line int, at rows.Place, format string, args ...any) {
	if s.bad == nil {
		s.bad = map[int][]error{}
	}
	s.bad[line] = append(s.bad[line], &rows.Error{Place: at, Err: fmt.Errorf(format, args...)})
}

// tags yields a sentence of tagged words for each line that says something. Of mentions that overlap, the one that begins
// first counts, and of these the longest. What is wrong with a mention is wrong with its line's row.
func (s *standoff) tags(ctx context.Context, typed bool, task *Task, skip skipFunc, yield func(item, error) bool) bool {
	inOrder(s.mentions)
	of := map[int][]mention{}
	for _, m := range s.mentions {
		if typed && len(task.Labels) > 0 {
			label, ok := findLabel(m.kind, task.Labels, nil)
			if !ok {
				s.fail(m.line, m.place, "expected one of the types %s, got %q", strings.Join(task.Labels, ", "), short(m.kind))
				continue
			}
			m.kind = label
		}
		if n := len(of[m.line]); n > 0 && of[m.line][n-1].overlaps(&m) {
			skip(m.place, "what overlaps with something that begins before it")
			continue
		}
		of[m.line] = append(of[m.line], m)
	}
	if lost, ok := s.lost(skip, yield); lost {
		return ok
	}
	n := 0
	for i, line := range s.lines {
		if err := ctx.Err(); err != nil {
			yield(item{}, err)
			return false
		}
		all := words(line)
		if sentence(all) == "" && s.bad[i] == nil {
			continue
		}
		it := item{key: strconv.Itoa(n), place: rows.Place{File: s.file, Line: s.first + i, Element: -1}}
		n++
		err := errors.Join(s.bad[i]...)
		if len(s.bad[i]) == 1 {
			err = s.bad[i][0]
		} else if err != nil {
			err = &rows.Error{Place: it.place, Err: err}
		}
		if err == nil && len(all) > maxTokens {
			err = &rows.Error{Place: it.place, Err: fmt.Errorf("a line of %d tokens, at most %d are plausible", len(all), maxTokens)}
		}
		if err == nil {
			it.input, it.output = sentence(all), tagLines(all, of[i], typed)
		}
		if !yield(it, err) {
			return false
		}
	}
	return true
}

// tagLines is a line "token : tag" for each word.
func tagLines(all []word, mentions []mention, typed bool) string {
	var b strings.Builder
	for i, w := range all {
		if len(mentions) > 0 && i >= mentions[0].to {
			mentions = mentions[1:]
		}
		if w.text == "" {
			continue
		}
		tag := "O"
		if len(mentions) > 0 && i >= mentions[0].from {
			tag = "I"
			if i == mentions[0].from {
				tag = "B"
			}
			if typed {
				tag += "-" + mentions[0].kind
			}
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(w.text + " : " + tag)
	}
	return b.String()
}
