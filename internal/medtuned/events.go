package medtuned

import (
	"context"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/rows"
)

const eventFiles = `Or the corpus's own XML, in files *.xml: a TEXT, of which a line is a sentence, and TAGS with an EVENT for each event. Where an event
begins and ends is counted in characters, from 0 or from 1: whichever agrees with the events' own texts in the whole file. Quotation
marks, < and & may stand in attributes as they are, which they do in some of the corpus's files. The split is not said by
their names.

	<EVENT id="E1" start="12" end="22" text="chest pain" modality="FACTUAL" polarity="POS" type="PROBLEM" />
`

// The attributes of an EVENT. Its text may hold anything, and ends where the next attribute begins.
var (
	eventStart = regexp.MustCompile(`\sstart="(\d{1,8})"`)
	eventEnd   = regexp.MustCompile(`\send="(\d{1,8})"`)
	eventType  = regexp.MustCompile(`\stype="([^"]*)"\s*(?:[a-z_]+="[^"]*"\s*)*$`)
	eventText  = regexp.MustCompile(`(?s)\stext="(.*?)"\s*(?:\s(?:id|start|end|modality|polarity|type|sec_time_rel)="|$)`)
	unescape   = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&quot;", `"`, "&apos;", "'", "&amp;", "&")
)

// maxElement is the longest EVENT, in bytes.
const maxElement = 1 << 14

// event is an EVENT element.
type event struct {
	start, end int // as they are counted there
	kind, text string
	place      rows.Place
}

// eventTags tags the words of a note by its events. A word that an event begins or ends in belongs to it.
func eventTags(typed bool) fileFunc {
	return func(ctx context.Context, file string, task *Task, skip skipFunc, yield func(item, error) bool) bool {
		text, err := readText(file)
		if err != nil {
			yield(item{}, err)
			return false
		}
		s := &standoff{file: file}
		note, tags, err := cutNote(file, strings.ReplaceAll(text, "\r\n", "\n"), s)
		if err != nil {
			yield(item{}, err)
			return false
		}
		s.place(note, s.events(file, tags, s.first+strings.Count(note, "\n")), skip)
		return s.tags(ctx, typed, task, skip, yield)
	}
}

// cutNote finds the text of a note and what follows it.
func cutNote(file, text string, s *standoff) (note, tags string, err error) {
	const open, begin, end = "<TEXT>", "<![CDATA[", "]]>"
	before, after, ok := strings.Cut(text, open)
	if !ok {
		return "", "", fmt.Errorf("%s: no element TEXT", file)
	}
	s.first = 1 + strings.Count(before, "\n")
	data, isData := strings.CutPrefix(strings.TrimLeft(after, " \t\n"), begin)
	if isData {
		s.first += strings.Count(after[:len(after)-len(data)], "\n")
		if note, tags, ok = strings.Cut(data, end); !ok {
			return "", "", fmt.Errorf("%s:%d: the text has no end ]]>", file, s.first)
		}
	} else {
		if note, tags, ok = strings.Cut(after, "</TEXT>"); !ok {
			return "", "", fmt.Errorf("%s:%d: the text has no end </TEXT>", file, s.first)
		}
		note = unescape.Replace(note)
	}
	if !strings.Contains(tags, "<TAGS") {
		return "", "", fmt.Errorf("%s: no element TAGS after the text", file)
	}
	s.lines = strings.Split(note, "\n")
	return note, tags, nil
}

// events reads the elements EVENT. line is the number of the first line of tags.
func (s *standoff) events(file, tags string, line int) (all []event) {
	const open = "<EVENT"
	for {
		before, after, ok := strings.Cut(tags, open)
		if !ok {
			return all
		}
		line += strings.Count(before, "\n")
		at := rows.Place{File: file, Line: line, Element: -1}
		element, _, ok := strings.Cut(after[:min(len(after), maxElement)], "/>")
		if !ok {
			s.fail(-1, at, "an EVENT without its end />")
			tags = after
			continue
		}
		tags = after[len(element):]
		line += strings.Count(element, "\n")
		start, end := eventStart.FindStringSubmatch(element), eventEnd.FindStringSubmatch(element)
		kind, text := eventType.FindStringSubmatch(element), eventText.FindStringSubmatch(element)
		if start == nil || end == nil || kind == nil || text == nil {
			s.fail(-1, at, "expected an EVENT with start, end, text and type, got %q", short(element))
			continue
		}
		e := event{kind: kind[1], text: unescape.Replace(text[1]), place: at}
		e.start, _ = strconv.Atoi(start[1]) // up to eight digits
		e.end, _ = strconv.Atoi(end[1])
		all = append(all, e)
	}
}

// place finds the words of the events.
func (s *standoff) place(note string, all []event, skip skipFunc) {
	runes := []rune(note)
	base, best := 0, -1
	for _, b := range []int{1, 0} { // what the corpus's first character is counted as
		n := 0
		for _, e := range all {
			if e.agrees(runes, b) {
				n++
			}
		}
		if n > best {
			base, best = b, n
		}
	}
	begins := make([]int, len(s.lines)) // of lines, in runes
	texts := make([][]word, len(s.lines))
	for i := range s.lines {
		if i > 0 {
			begins[i] = begins[i-1] + utf8.RuneCountInString(s.lines[i-1]) + 1
		}
		texts[i] = words(s.lines[i])
	}
	for _, e := range all {
		from, to := e.start-base, e.end-base
		if from < 0 || from >= to || to > len(runes) {
			s.fail(-1, e.place, "characters %d to %d of a text of %d", e.start, e.end, len(runes))
			continue
		}
		line := sort.SearchInts(begins, from+1) - 1
		if !e.agrees(runes, base) {
			s.fail(line, e.place, "characters %d to %d are %q, and not %q", e.start, e.end, short(string(runes[from:to])), short(e.text))
			continue
		}
		m := mention{line: line, from: -1, kind: e.kind, place: e.place}
		for i, w := range texts[line] {
			if w.text == "" || begins[line]+w.from >= to || begins[line]+w.to <= from {
				continue
			}
			if m.from < 0 {
				m.from = i
			}
			m.to = i + 1
		}
		switch {
		case line+1 < len(begins) && to > begins[line+1]:
			skip(e.place, "an event of more than one line")
		case m.from < 0:
			s.fail(line, e.place, "characters %d to %d have no word", e.start, e.end)
		default:
			s.mentions = append(s.mentions, m)
		}
	}
}

// agrees reports whether a text has at an event's place what the event says; white space does not count.
func (e *event) agrees(runes []rune, base int) bool {
	from, to := e.start-base, e.end-base
	return from >= 0 && from < to && to <= len(runes) &&
		strings.EqualFold(strings.Join(strings.Fields(string(runes[from:to])), " "), strings.Join(strings.Fields(e.text), " "))
}
