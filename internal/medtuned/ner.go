package medtuned

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/rows"
)

const nerFormat = `Files: text of two columns, a token and its tag, apart by a tab (or spaces); an empty line ends a sentence. Tags are
IOB2: B-TYPE begins an entity, I-TYPE goes on with one of the same type, O is outside. Lines of -DOCSTART- are passed
over. This is the form of the corpora in cambridgeltl/MTL-Bioinformatics-2016.
`

const untypedFormat = nerFormat + `B and I without a type will do, too.
A row: the tokens with spaces between -> a line "token : B", "token : I" or "token : O" for each. Types are left out.

	Folic	B-Chemical
	acid	I-Chemical
	helps	O
`

const typedRow = `A row: the tokens with spaces between -> a line "token : B-TYPE", "token : I-TYPE" or "token : O" for each.
`

const typedFormat = nerFormat + typedRow + `
	Folic	B-Chemical
	acid	I-Chemical
	helps	O
`

const i2b2EventsFormat = nerFormat + `Types are PROBLEM, TEST, TREATMENT, CLINICAL_DEPT, EVIDENTIAL and OCCURRENCE, in any letter case. The corpus needs a data use
agreement.
` + typedRow + `
	Chest	B-TEST
	film	I-TEST
	done	O
`

// maxLine is the longest line, and maxTokens the longest sentence, of a file of tags.
const (
	maxLine   = 1 << 16
	maxTokens = 1 << 14
)

// tagger reads sentences of tagged tokens.
type tagger struct {
	file  string
	r     *bufio.Reader
	line  int // of the line read last
	typed bool
	types []string // that there may be; none: any
}

// nerItems reads files of two columns.
func nerItems(typed bool) itemsFunc {
	return func(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
		return func(yield func(item, error) bool) {
			for _, file := range files {
				f, err := regular.Open(file)
				if err != nil {
					yield(item{}, err)
					return
				}
				t := newTagger(file, rows.Counted(ctx, f), typed)
				if typed {
					t.types = task.Labels
				}
				ok := t.items(ctx, skip, yield)
				f.Close()
				if !ok {
					return
				}
			}
		}
	}
}

func newTagger(file string, r io.Reader, typed bool) *tagger {
	return &tagger{file: file, r: bufio.NewReaderSize(r, maxLine), typed: typed}
}

// items yields a sentence each. It is false where the sequence ends.
func (t *tagger) items(ctx context.Context, skip skipFunc, yield func(item, error) bool) bool {
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			yield(item{}, err)
			return false
		}
		it, err := t.sentence(skip)
		if err == io.EOF {
			return true
		}
		it.key = strconv.Itoa(n)
		var bad *rows.Error
		if !yield(it, err) || err != nil && !errors.As(err, &bad) {
			return false
		}
	}
}

// sentence reads the next sentence. The first thing wrong with it is its error; it is read to its end.
func (t *tagger) sentence(skip skipFunc) (it item, err error) {
	var in, out strings.Builder
	var wrong error
	before, n := "O", 0
	for {
		text, err := t.next()
		if err == io.EOF && n == 0 || err != nil && err != io.EOF {
			return item{}, err
		}
		at := rows.Place{File: t.file, Line: t.line, Element: -1}
		if err == nil && bytes.HasPrefix(text, []byte("-DOCSTART-")) {
			skip(at, "the mark of a document's beginning")
			continue
		}
		if err == io.EOF || len(text) == 0 {
			if n == 0 {
				continue
			}
			break
		}
		if n++; n == 1 {
			it.place = at
		}
		if wrong != nil {
			continue
		}
		token, tag, err := t.token(text, before)
		if err == nil && n > maxTokens {
			err = fmt.Errorf("a sentence of more than %d tokens; an empty line ends a sentence", maxTokens)
		}
		if err != nil {
			wrong = &rows.Error{Place: at, Err: err}
			continue
		}
		before = tag
		if !t.typed {
			tag = tag[:1]
		}
		if n > 1 {
			in.WriteByte(' ')
			out.WriteByte('\n')
		}
		in.WriteString(token)
		out.WriteString(token + " : " + tag)
	}
	it.input, it.output = in.String(), out.String()
	return it, wrong
}

// next returns the next line, trimmed; io.EOF after the last.
func (t *tagger) next() ([]byte, error) {
	text, err := t.r.ReadSlice('\n')
	if err == io.EOF && len(text) == 0 {
		return nil, io.EOF
	}
	t.line++
	if err == bufio.ErrBufferFull {
		return nil, fmt.Errorf("%s:%d: a line of more than %d bytes; expected a token and its tag", t.file, t.line, maxLine)
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s:%d: %w", t.file, t.line, err)
	}
	if t.line == 1 {
		text = bytes.TrimPrefix(text, []byte("\uFEFF"))
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("%s:%d: a zero byte: the file is no text in UTF-8", t.file, t.line)
	}
	return bytes.TrimSpace(text), nil
}

// token reads a line. before is the tag of the line before.
func (t *tagger) token(text []byte, before string) (token, tag string, err error) {
	if !utf8.Valid(text) {
		return "", "", errors.New("invalid UTF-8")
	}
	columns := strings.Split(string(text), "\t")
	if len(columns) == 1 {
		columns = strings.Fields(string(text))
	}
	if len(columns) != 2 {
		return "", "", fmt.Errorf("expected a token and its tag, got %d columns: %q", len(columns), short(string(text)))
	}
	token, tag = strings.TrimSpace(columns[0]), strings.TrimSpace(columns[1])
	if token == "" || strings.ContainsFunc(token, isSpace) {
		return "", "", fmt.Errorf("a token is one word, got %q", short(token))
	}
	prefix, kind, hyphen := strings.Cut(tag, "-")
	if !wellFormed(prefix, kind, hyphen) {
		return "", "", fmt.Errorf("expected a tag O, B-TYPE or I-TYPE, got %q", short(tag))
	}
	if prefix != "O" && t.typed {
		if kind, err = t.kind(kind); err != nil {
			return "", "", err
		}
		tag = prefix + "-" + kind
	}
	if prefix == "I" && (before == "O" || before[1:] != tag[1:]) {
		return "", "", fmt.Errorf("the tag %s follows %s: in IOB2 an entity begins with B", short(tag), short(before))
	}
	return token, tag, nil
}

// wellFormed reports whether a tag is O, B, I, B-TYPE or I-TYPE.
func wellFormed(prefix, kind string, hyphen bool) bool {
	switch prefix {
	case "O":
		return !hyphen
	case "B", "I":
		return hyphen == (kind != "") && !strings.ContainsFunc(kind, isSpace)
	}
	return false
}

func isSpace(r rune) bool {
	return r == ' ' || r == '\t' || r == '\u00a0' || r == '\u2028' || r == '\u2029' || r < ' '
}

// kind spells a type as the task does.
func (t *tagger) kind(kind string) (string, error) {
	if kind == "" {
		return "", errors.New("the tag has no type")
	}
	if len(t.types) == 0 {
		return kind, nil
	}
	if l, ok := findLabel(kind, t.types, nil); ok {
		return l, nil
	}
	return "", fmt.Errorf("expected a tag of the types %s, got %q", strings.Join(t.types, ", "), short(kind))
}

// twoColumns is the shape of nerFormat.
const twoColumns = "two columns"

// tagged are the corpora of tagged tokens.
func tagged() (cs []Converter) {
	for _, name := range []string{"ncbi-disease", "bc5cdr-disease", "bc5cdr-chem", "jnlpba"} {
		cs = append(cs, Converter{Name: name, Format: untypedFormat, Seen: twoColumns, items: nerItems(false)})
	}
	annotated := func(typed bool) itemsFunc {
		return byExtension(nerItems(typed), map[string]fileFunc{".con": conceptTags(typed), ".xml": eventTags(typed)})
	}
	const more, told = conceptTagFiles + "\n" + eventFiles, "i2b2-2010's .con, i2b2-2012's XML"
	return append(cs,
		Converter{Name: "bc2gm", Format: untypedFormat, Told: twoColumns, items: nerItems(false)},
		Converter{Name: "ner", Format: untypedFormat, More: more, Seen: twoColumns, Told: told, items: annotated(false)},
		Converter{Name: "ner-typed", Format: typedFormat, More: more, Seen: twoColumns, Told: told, items: annotated(true)},
		Converter{Name: "i2b2-2012", Format: i2b2EventsFormat, More: eventFiles, Told: twoColumns + ", XML",
			items: byExtension(nerItems(true), map[string]fileFunc{".xml": eventTags(true)})})
}
