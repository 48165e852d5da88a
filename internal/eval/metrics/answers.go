package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Labels are the names an answer may give.
type Labels struct {
	names []string
	forms []form
}

// form is a way to write a label.
type form struct {
	text  string // folded
	label int
}

// noLabel is the form that says that no label applies.
const noLabel = -1

// NewLabels returns the labels names, which may also be written as the keys of aliases say.
func NewLabels(names []string, aliases map[string]string) (*Labels, error) {
	l := &Labels{names: slices.Clone(names)}
	var p problems
	if len(names) == 0 {
		p.add("no labels")
	}
	for i, name := range names {
		l.addForm(&p, name, i)
	}
	for _, alias := range slices.Sorted(maps.Keys(aliases)) {
		name := aliases[alias]
		i := slices.Index(names, name)
		if i < 0 {
			p.add("%q is to stand for %q, which is not among the labels", alias, name)
			continue
		}
		l.addForm(&p, alias, i)
	}
	slices.SortFunc(l.forms, func(a, b form) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text))
	})
	return l, p.err()
}

func (l *Labels) addForm(p *problems, text string, label int) {
	folded := fold(text)
	if folded == "" {
		p.add("the label %q has nothing but punctuation", text)
		return
	}
	for _, f := range l.forms {
		if f.text == folded && f.label != label {
			p.add("%q could be two labels", text)
			return
		}
	}
	l.forms = append(l.forms, form{folded, label})
}

// One reads an answer that should be one label, such as yes, no, maybe or a relation. By the first of these rules that
// finds a label:
//
//  1. the whole answer is a label;
//  2. statements: all that begin with a label must agree;
//  3. the first line begins with a label, and the line ends there, or punctuation or "because", "since", "as", "due"
//     follows. "No effect was seen" is not no.
//
// Where a second label follows the first, as in "yes, no or maybe", none is read. Of labels that begin alike the
// longest counts.
func (l *Labels) One(answer string) (label string, valid bool) {
	i, ok := l.one(answer)
	if !ok {
		return "", false
	}
	return l.names[i], true
}

func (l *Labels) one(answer string) (int, bool) {
	whole := fold(answer)
	for _, f := range l.forms {
		if f.text == whole {
			return f.label, true
		}
	}
	said := votes{}
	for _, s := range statements(answer) {
		i, ok := l.head(withoutArticle(fold(s)))
		said.add(i, ok)
	}
	if said.any {
		return said.result()
	}
	return l.head(fold(firstLine(answer)))
}

// head reads the label that a folded text begins with.
func (l *Labels) head(text string) (int, bool) {
	label, rest, ok := l.prefix(text)
	if !ok {
		return 0, false
	}
	rest = strings.TrimLeft(rest, " ,;:/&")
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "or "), "and ")
	for _, f := range l.forms {
		if after, ok := strings.CutPrefix(rest, f.text); ok && boundary(after) {
			return label, f.label == label
		}
	}
	return label, true
}

// prefix finds the longest form that a folded text begins with and that ends where a label may.
func (l *Labels) prefix(text string) (label int, rest string, ok bool) {
	for _, f := range l.forms {
		if rest, ok := strings.CutPrefix(text, f.text); ok && ends(rest) {
			return f.label, rest, true
		}
	}
	return 0, text, false
}

// reasons are the words that may follow an answer on its line.
var reasons = []string{"because", "since", "as", "due"}

// ends reports whether a label or an option may be at an end before rest.
func ends(rest string) bool {
	if rest == "" {
		return true
	}
	if strings.IndexByte(";!?)\n", rest[0]) >= 0 {
		return true
	}
	if strings.IndexByte(".,:", rest[0]) >= 0 {
		return len(rest) == 1 || rest[1] < '0' || rest[1] > '9' // 5 does not end in 5.5, nor 1 in 1:2
	}
	if rest[0] != ' ' {
		return false
	}
	rest = rest[1:]
	for _, mark := range []string{"(", "- ", "– ", "— "} {
		if strings.HasPrefix(rest, mark) {
			return true
		}
	}
	return reason(rest)
}

// reason reports whether rest begins with a word that gives a reason.
func reason(rest string) bool {
	word, _, _ := strings.Cut(rest, " ")
	return slices.Contains(reasons, strings.ToLower(strings.TrimRight(word, ".,:;")))
}

// votes gathers readings that must agree.
type votes struct {
	label      int
	any, split bool
}

func (v *votes) add(label int, ok bool) {
	if !ok {
		return
	}
	v.split = v.split || v.any && v.label != label
	v.label, v.any = label, true
}

func (v *votes) result() (int, bool) { return v.label, v.any && !v.split }

// Set is what an answer that lists labels says.
type Set struct {
	Labels  []string // in the order of the label set
	Unknown int      // items that are not in the label set
	Valid   bool
}

// Many reads an answer that lists labels, such as "Resisting cell death (CD), Evading growth suppressors (GS)". Items
// are separated by commas, semicolons, line breaks and "and", and may carry bullets, numbers, or an explanation in
// brackets or after a colon or dash; labels may have commas in them. What comes before a statement, after an empty line or after a full stop is not part of the list. Repetitions
// count once. Items that are not labels are counted: they are wrong predictions like any other. The answer is valid if
// it has a label, or is none: the text, if not empty, that stands for no label at all. None beside labels counts as an
// item that is no label.
func (l *Labels) Many(answer, none string) (s Set) {
	list := l
	if none = fold(none); none != "" {
		list = &Labels{names: l.names, forms: append([]form{{none, noLabel}}, l.forms...)}
		slices.SortStableFunc(list.forms, func(a, b form) int { return cmp.Compare(len(b.text), len(a.text)) })
	}
	seen := make([]bool, len(l.names))
	nones, labels := 0, 0
	for text := listOf(answer); text != ""; text = bullet(text) {
		label, rest, ok := list.prefix(text)
		if ok && rest != "" && (rest[0] == ' ' || rest[0] == ':') {
			rest = nextItem(rest) // after an explanation
		}
		if !ok {
			label, rest, ok = list.beforeAnd(text)
		}
		switch {
		case !ok:
			s.Unknown++
			rest = nextItem(text)
		case label == noLabel:
			nones++
		case !seen[label]:
			seen[label] = true
			labels++
		}
		if rest == "." || strings.HasPrefix(rest, ". ") || strings.HasPrefix(rest, ".\n") {
			break
		}
		text = rest
	}
	for i, name := range l.names {
		if seen[i] {
			s.Labels = append(s.Labels, name)
		}
	}
	s.Valid = labels > 0 || nones > 0 && s.Unknown == 0
	if labels > 0 && nones > 0 {
		s.Unknown++
	}
	return s
}

// nextItem is what begins with the next separator.
func nextItem(text string) string {
	if i := strings.IndexAny(text, ",;\n"); i >= 0 {
		return text[i:]
	}
	return ""
}

// beforeAnd is prefix for a form that "and" follows.
func (l *Labels) beforeAnd(text string) (label int, rest string, ok bool) {
	for _, f := range l.forms {
		rest, ok := strings.CutPrefix(text, f.text)
		if !ok {
			continue
		}
		if next, ok := strings.CutPrefix(rest, " and "); ok {
			return f.label, next, true
		}
		if next, ok := strings.CutPrefix(rest, " & "); ok {
			return f.label, next, true
		}
	}
	return 0, text, false
}

// listOf is the part of an answer that lists labels: folded but for line breaks, the first bullet removed.
func listOf(answer string) string {
	answer = strings.ReplaceAll(answer, "\r\n", "\n")
	if at := statement.FindAllStringIndex(answer, -1); len(at) > 0 {
		answer = answer[at[len(at)-1][1]:]
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(answer), "\n") {
		if strings.TrimSpace(line) == "" {
			break
		}
		lines = append(lines, foldInside(line))
	}
	return bullet(strings.Join(lines, "\n"))
}

var bulletMark = regexp.MustCompile(`^(?:[\s,;:•)'_.-]|\d{1,2}[.)]\s|(?:and|&)\s)+`)

// bullet removes separators, bullets and numbers in front of an item.
func bullet(text string) string {
	return text[len(bulletMark.FindString(text)):]
}

// statement is what introduces an answer that is stated.
var statement = regexp.MustCompile(`(?i)\b(?:answers?|choice|options?|labels?|class(?:es)?|categor(?:y|ies)|relation(?:ship)?s?|` +
	`conclusion|classification|prediction|output)\s*(?:(?:is|are|would be|should be|must be)\b(?:[ \t]*:)?|[:=])[ \t]*`)

// statements are what follows each introduction, up to the next one or the end of the line.
func statements(answer string) (out []string) {
	found := statement.FindAllStringIndex(answer, -1)
	for i, at := range found {
		end := len(answer)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		out = append(out, line(answer[at[1]:end]))
	}
	return out
}

func line(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// firstLine is the first line that is not empty.
func firstLine(s string) string { return line(strings.TrimSpace(s)) }

func withoutArticle(s string) string {
	for _, a := range []string{"a ", "an ", "the ", "that "} {
		if rest, ok := strings.CutPrefix(s, a); ok {
			return rest
		}
	}
	return s
}

// fold makes two spellings of a label equal: lower case, single spaces, no quotes, asterisks and backquotes, no
// punctuation at the ends, no brackets around the whole. Signs and points in front stay: -5 and .5 are not 5.
func fold(s string) string {
	s = foldInside(s)
	for {
		t := strings.TrimRight(strings.TrimLeft(s, " ;:!?'_•"), " .,;:!?'_")
		t = strings.TrimPrefix(strings.TrimPrefix(t, "- "), "– ")
		if n := len(t); n > 1 && (t[0] == '(' && t[n-1] == ')' || t[0] == '[' && t[n-1] == ']') &&
			!strings.ContainsAny(t[1:n-1], "()[]") {
			t = t[1 : n-1]
		}
		if t == s {
			return s
		}
		s = t
	}
}

// foldInside is fold but for the ends.
func foldInside(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	for _, r := range s {
		switch r {
		case '"', '“', '”', '„', '«', '»', '*', '`':
			continue
		case '’', '‘':
			r = '\''
		}
		if unicode.IsSpace(r) {
			space = true
			continue
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Choice reads an answer that should be one of the options, which are lettered A, B, ...; it returns its index. By the
// first of these rules that finds an option:
//
//  1. the whole answer is an option's text;
//  2. statements, and "B is correct" and the like: all that can be read must agree;
//  3. the answer begins with an option.
//
// An option begins a text as a letter: B, "B.", "B)", "(B)", "B:", "B - ...", "option B", "B because ...", in lower
// case only with one of . ) : or alone; or as its own text, up to the line's end, punctuation or a reason. "A patient"
// is not A, "C. difficile" not C where an option reads so. Not read are: a letter with another option's text; two
// letters ("A or B"); the options repeated as a list; text that is both an option and another one's letter.
func Choice(answer string, options []string) (index int, valid bool) {
	c := choice{options: make([]string, len(options))}
	for i, o := range options {
		c.options[i] = fold(o)
	}
	return c.read(answer)
}

// ChoiceLetter is the letter of an option.
func ChoiceLetter(index int) string {
	if index < 0 || index >= maxOptions {
		return fmt.Sprint(index + 1)
	}
	return string(rune('A' + index))
}

const maxOptions = 26

// choice reads one question's answers; its options are folded.
type choice struct{ options []string }

func (c choice) read(answer string) (int, bool) {
	answer = strings.TrimSpace(answer) // whether a line goes on behind "A and" is no matter of the reading
	if i, ok := c.exact(fold(answer)); ok && len(c.options[i]) > 1 {
		return i, true
	}
	said := votes{}
	for _, s := range statements(answer) {
		said.add(c.head(s))
	}
	for _, at := range declared.FindAllStringSubmatchIndex(answer, -1) {
		i := int(answer[at[2]] - 'A')
		said.add(i, i < len(c.options) && !doubt.MatchString(answer[max(0, at[2]-40):at[2]]))
	}
	if said.any {
		return said.result()
	}
	return c.head(answer)
}

// declared is "B is correct" in its forms.
var declared = regexp.MustCompile(`(?:^|[^\w-])([A-Z])\)?\*{0,2} is (?:the )?(?:most likely |single )?(?:correct|right|best|most likely)\b`)

// doubt is what may stand before a letter that is not declared to be correct after all.
var doubt = regexp.MustCompile(`(?i)\b(?:nor|or|and|not|if|that|whether|than)\s+(?:(?:option|choice|answer)\s+)?\(?$`)

// exact finds the one option that text is.
func (c choice) exact(text string) (int, bool) {
	found := votes{}
	for i, o := range c.options {
		found.add(i, o != "" && o == text)
	}
	return found.result()
}

// prefix finds the longest option that a folded text begins with.
func (c choice) prefix(text string) (int, bool) {
	found, length := votes{}, 0
	for i, o := range c.options {
		rest, ok := strings.CutPrefix(text, o)
		if !ok || len(o) < max(length, 1) || !ends(rest) {
			continue
		}
		if len(o) > length {
			found, length = votes{}, len(o)
		}
		found.add(i, true)
	}
	return found.result()
}

// head reads the option that a text begins with.
func (c choice) head(text string) (int, bool) {
	byText, textOK := c.prefix(fold(firstLine(text)))
	byLetter, rest, letterOK := letterHead(text, len(c.options))
	switch {
	case letterOK && textOK && byText != byLetter:
		if own := c.options[byLetter]; own != "" && own == fold(rest) {
			return byLetter, true
		}
		return byText, len(c.options[byText]) > 1 // the letter is the text's own beginning
	case textOK && !letterOK:
		return byText, true
	case !letterOK:
		return 0, false
	}
	return byLetter, c.agrees(byLetter, rest)
}

// agrees reports whether what follows an option's letter leaves it standing.
func (c choice) agrees(letter int, rest string) bool {
	if own, ok := strings.CutPrefix(fold(rest), c.options[letter]); ok && c.options[letter] != "" && boundary(own) {
		return !continuesList(own, letter)
	}
	if i, ok := c.prefix(fold(firstLine(rest))); ok && i != letter {
		return false
	}
	if strings.TrimSpace(rest) != "" && c.abbreviates(letter) {
		return false
	}
	if m := another.FindStringSubmatch(rest); m != nil && m[1]+m[2] != ChoiceLetter(letter) {
		return false
	}
	if _, next, ok := strings.Cut(rest, "\n"); ok {
		if i, _, ok := letterHead(next, len(c.options)); ok && i == letter+1 {
			return false // a list
		}
	}
	return true
}

// abbreviates reports whether an option's text begins with what looks like this letter: C. difficile.
func (c choice) abbreviates(letter int) bool {
	return slices.ContainsFunc(c.options, func(o string) bool {
		i, rest, ok := letterHead(o, len(c.options))
		return ok && i == letter && rest != ""
	})
}

// another is a second letter after the first.
var another = regexp.MustCompile(`^\s*(?:(?:[,/&;]|and\b|or\b)\s*(?:(?:and|or)\s+)?[(\[]?([A-Z])(?:[)\].,:;\s]|$)|[(\[]?([A-Z])[)\].\s]*$)`)

// boundary reports whether a word is at an end before rest.
func boundary(rest string) bool {
	r, _ := utf8.DecodeRuneInString(rest)
	return rest == "" || !unicode.IsLetter(r) && !unicode.IsDigit(r)
}

// continuesList reports whether folded text goes on with the next option's letter.
func continuesList(rest string, letter int) bool {
	rest = strings.TrimLeft(rest, " .,;:")
	open := strings.HasPrefix(rest, "(")
	rest = strings.TrimPrefix(rest, "(")
	if len(rest) < 2 || int(rest[0]-'a') != letter+1 {
		return false
	}
	return rest[1] == ')' || !open && (rest[1] == '.' || rest[1] == ':')
}

// letterHead reads the letter of one of n options at the beginning of a text. Rest is what follows it.
func letterHead(text string, n int) (index int, rest string, ok bool) {
	text = strings.TrimLeft(text, " \t\r\n*`\"'“_#>")
	named := optionWord.FindString(text)
	text = text[len(named):]
	open := text != "" && (text[0] == '(' || text[0] == '[')
	if open {
		text = strings.TrimLeft(text[1:], " ")
	}
	if text == "" {
		return 0, "", false
	}
	index, lower := int(text[0])-'A', false
	if 'a' <= text[0] && text[0] <= 'z' {
		index, lower = int(text[0])-'a', true
	}
	if index < 0 || index >= min(n, maxOptions) {
		return 0, "", false
	}
	text = strings.TrimLeft(text[1:], "*`")
	rest, closed, ok := afterLetter(text)
	switch {
	case !ok, open && closed != ')' && closed != ']':
		return 0, "", false
	case lower && named == "" && !strings.ContainsRune(".):]", rune(closed)) && strings.TrimSpace(text) != "":
		return 0, "", false
	}
	return index, rest, true
}

var optionWord = regexp.MustCompile(`^(?i:(?:option|choice|answer)\s+)?`)

// afterLetter reports whether a letter that text follows stands alone. Closed is the punctuation that ends it, 0 for
// none; rest comes after that.
func afterLetter(text string) (rest string, closed byte, ok bool) {
	if strings.TrimSpace(text) == "" {
		return "", 0, true
	}
	switch c := text[0]; c {
	case ')', ']', ':':
		return strings.TrimLeft(text[1:], ".:*` "), c, true
	case ',', ';':
		return text, 0, true
	case '.', '!':
		return strings.TrimLeft(text[1:], "*` "), c, len(text) == 1 || !wordAt(text[1:])
	case '\n', '\r':
		return text, 0, true
	case '"', '\'':
		return text[1:], 0, !wordAt(text[1:])
	case ' ', '\t':
	default:
		return "", 0, false
	}
	next := strings.TrimLeft(text, " \t*`")
	for _, mark := range []string{"-", "–", "—", ":", "=", "\n", "\r", "(", ",", "/", "&", "and ", "or "} {
		if strings.HasPrefix(next, mark) {
			return strings.TrimLeft(next, "-–—:= "), 0, true
		}
	}
	return next, 0, reason(next)
}

// wordAt reports whether text begins with a letter or digit.
func wordAt(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}
