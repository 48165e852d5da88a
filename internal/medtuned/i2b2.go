package medtuned

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/rows"
)

const conceptFiles = `Or i2b2/VA 2010's own files: name NAME.con, and NAME.txt is found beside it, or in a folder txt beside its folder. A line of the
note is a sentence; a line of the .con file is a concept, with lines from 1 and words from 0. The split is not said by their
names.
`

const conceptTagFiles = conceptFiles + `
	c="chest pain" 12:4 12:5||t="problem"
`

const conceptPairFiles = conceptFiles + `NAME.rel has the relations, beside the .con file or in a folder rel. As in BLUE, each pair of concepts in a line makes a row.

	c="aspirin" 12:0 12:0||r="TrAP"||c="chest pain" 12:4 12:5
`

// concept is a line of a .con file, and relation one of a .rel file.
var (
	concept  = regexp.MustCompile(`^c="(.*)" (\d{1,6}):(\d{1,6}) (\d{1,6}):(\d{1,6})\|\|t="([^"|]+)"$`)
	relation = regexp.MustCompile(`^c="(.*)" (\d{1,6}):(\d{1,6}) (\d{1,6}):(\d{1,6})\|\|r="([^"|]+)"\|\|c="(.*)" (\d{1,6}):(\d{1,6}) (\d{1,6}):(\d{1,6})$`)
)

// records yields the lines of a file that say something.
func records(file string, yield func(at rows.Place, line string)) error {
	text, err := readText(file)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			yield(rows.Place{File: file, Line: i + 1, Element: -1}, line)
		}
	}
	return nil
}

// span finds the words that an annotation names, as text, from line:from to line:to with both. Where they are of several
// lines it is false, with no error.
func (s *standoff) span(at rows.Place, text string, where []string) (m mention, ok bool) {
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(where[i]) // up to six digits
	}
	m = mention{line: n[0] - 1, from: n[1], to: n[3] + 1, place: at}
	if m.line < 0 || m.line >= len(s.lines) {
		s.fail(-1, at, "line %d of a note of %d", n[0], len(s.lines))
		return m, false
	}
	if n[0] != n[2] {
		return m, false
	}
	all := words(s.lines[m.line])
	if m.from >= m.to || m.to > len(all) {
		s.fail(m.line, at, "words %d to %d of line %d, which has %d", m.from, n[3], n[0], len(all))
		return m, false
	}
	if there := sentence(all[m.from:m.to]); !strings.EqualFold(there, strings.Join(strings.Fields(text), " ")) {
		s.fail(m.line, at, "words %d to %d of line %d are %q, and not %q", m.from, n[3], n[0], short(there), short(text))
		return m, false
	}
	return m, true
}

// concepts reads a .con file and its note.
func concepts(file string, skip skipFunc) (*standoff, error) {
	note, err := beside(file, "txt", ".txt")
	if err != nil {
		return nil, err
	}
	text, err := readText(note)
	if err != nil {
		return nil, err
	}
	s := &standoff{file: note, first: 1, lines: strings.Split(text, "\n")}
	seen := map[mention]bool{}
	err = records(file, func(at rows.Place, line string) {
		c := concept.FindStringSubmatch(line)
		if c == nil {
			s.fail(-1, at, `expected c="..." 1:0 1:1||t="problem", got %q`, short(line))
			return
		}
		m, ok := s.span(at, c[1], c[2:6])
		switch {
		case !ok && c[2] != c[4]:
			skip(at, "a concept of more than one line")
		case ok:
			m.kind = strings.ToLower(c[6])
			once := m
			once.place = rows.Place{}
			if seen[once] {
				skip(at, "a concept that is there twice")
				return
			}
			seen[once] = true
			s.mentions = append(s.mentions, m)
		}
	})
	inOrder(s.mentions)
	return s, err
}

// conceptTags tags the words of a note by its concepts, whose types are in capitals as those of i2b2-2012.
func conceptTags(typed bool) fileFunc {
	return func(ctx context.Context, file string, task *Task, skip skipFunc, yield func(item, error) bool) bool {
		s, err := concepts(file, skip)
		if err != nil {
			yield(item{}, err)
			return false
		}
		for i := range s.mentions {
			s.mentions[i].kind = strings.ToUpper(s.mentions[i].kind)
		}
		return s.tags(ctx, typed, task, skip, yield)
	}
}

// pair is two concepts of a note, by line, first word and end of each, the first in the text first.
type pair [2][3]int

func pairOf(a, b *mention) pair {
	p := pair{{a.line, a.from, a.to}, {b.line, b.from, b.to}}
	if slices.Compare(p[0][:], p[1][:]) > 0 {
		p[0], p[1] = p[1], p[0]
	}
	return p
}

// related is what the lines of a .rel file say of a pair.
type related struct {
	labels []string
	place  rows.Place
	used   bool
}

// relations reads the .rel file of a note with its concepts.
func (s *standoff) relations(file string, task *Task) (map[pair]*related, []pair, error) {
	all, order := map[pair]*related{}, []pair(nil)
	err := records(file, func(at rows.Place, line string) {
		r := relation.FindStringSubmatch(line)
		if r == nil {
			s.fail(-1, at, `expected c="..." 1:0 1:1||r="TrAP"||c="..." 1:3 1:4, got %q`, short(line))
			return
		}
		label, known := findLabel(r[6], task.Labels, nil)
		if !known || label == noRelation {
			s.fail(-1, at, "expected a relation of %s, got %q", strings.Join(task.Labels[:len(task.Labels)-1], ", "), short(r[6]))
			return
		}
		a, ok := s.span(at, r[1], r[2:6])
		b, ok2 := s.span(at, r[7], r[8:12])
		if !ok || !ok2 {
			return // told, or of a concept of more than one line, which is
		}
		key := pairOf(&a, &b)
		if all[key] == nil {
			all[key] = &related{place: at}
			order = append(order, key)
		}
		if !slices.Contains(all[key].labels, label) {
			all[key].labels = append(all[key].labels, label)
		}
	})
	return all, order, err
}

// maxConcepts is how many concepts a line may have: pairs grow with their square.
const maxConcepts = 256

const noRelation = "No Relations"

// conceptPairs makes a row of each pair of concepts in a line of a note, as the BLUE benchmark does: with the relation that
// the .rel file has, of several one row each, or else none.
func conceptPairs(ctx context.Context, file string, task *Task, skip skipFunc, yield func(item, error) bool) bool {
	s, err := concepts(file, skip)
	if err != nil {
		yield(item{}, err)
		return false
	}
	name, err := beside(file, "rel", ".rel")
	if err != nil {
		yield(item{}, err)
		return false
	}
	found, order, err := s.relations(name, task)
	if err != nil {
		yield(item{}, err)
		return false
	}
	if lost, ok := s.lost(skip, yield); lost {
		return ok
	}
	p := pairing{s: s, found: found, skip: skip, yield: yield}
	for from := 0; from < len(s.mentions); {
		to := from + 1
		for to < len(s.mentions) && s.mentions[to].line == s.mentions[from].line {
			to++
		}
		if err := ctx.Err(); err != nil {
			yield(item{}, err)
			return false
		}
		if !p.line(s.mentions[from:to]) {
			return false
		}
		from = to
	}
	for _, key := range order {
		if r := found[key]; !r.used && s.bad[key[0][0]] == nil {
			s.fail(-1, r.place, "the .con file has no two concepts of one line where this relation has them")
		}
	}
	return s.tell(yield)
}

// pairing makes rows of pairs.
type pairing struct {
	s     *standoff
	found map[pair]*related
	skip  skipFunc
	yield func(item, error) bool
	n     int
}

// line makes the rows of the concepts of one line. It makes none of a line with a bad concept: that two others have no
// relation is not known then.
func (p *pairing) line(all []mention) bool {
	line := all[0].line
	if p.s.bad[line] != nil {
		return true
	}
	if n := len(p.s.lines[line]); len(all) > maxConcepts || n > maxLine {
		p.s.fail(line, all[0].place, "line %d has %d concepts and %d bytes, at most %d and %d are plausible", line+1, len(all), n, maxConcepts, maxLine)
		return true
	}
	text := words(p.s.lines[line])
	for i := range all {
		for k := i + 1; k < len(all); k++ {
			a, b := &all[i], &all[k]
			labels := []string{noRelation}
			if r := p.found[pairOf(a, b)]; r != nil {
				r.used, labels = true, r.labels
			}
			if a.overlaps(b) {
				p.skip(b.place, "a concept with one that overlaps with it: the two cannot both be marked")
				continue
			}
			for _, label := range labels {
				it := item{key: strconv.Itoa(p.n), place: a.place, input: marked(text, a, b), output: label}
				p.n++
				if !p.yield(it, nil) {
					return false
				}
			}
		}
	}
	return true
}

// marked is a sentence with @problem$ and the like in the place of two concepts, of which a comes first.
func marked(text []word, a, b *mention) string {
	mark := func(m *mention) word { return word{text: "@" + m.kind + "$"} }
	return sentence(slices.Concat(text[:a.from], []word{mark(a)}, text[a.to:b.from], []word{mark(b)}, text[b.to:]))
}

// notByItself refuses a file that belongs to another one.
func notByItself(_ context.Context, file string, _ *Task, _ skipFunc, yield func(item, error) bool) bool {
	yield(item{}, fmt.Errorf("%s: name %s.con: its %s is found beside it", file, stem(file), filepath.Ext(file)))
	return false
}
