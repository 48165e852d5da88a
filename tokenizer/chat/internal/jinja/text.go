package jinja

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// quote adds Python's repr of a string.
func quote(t *text, s string) {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	t.addByte(q)
	from := 0
	for i, c := range s {
		e := escapeRune(c, rune(q))
		if e == "" {
			continue
		}
		t.add(s[from:i])
		t.add(e)
		from = i + utf8.RuneLen(c)
	}
	t.add(s[from:])
	t.addByte(q)
}

// escapeRune is how a repr writes a character that does not stand for itself, or "".
func escapeRune(c, quote rune) string {
	switch {
	case c == quote || c == '\\':
		return `\` + string(c)
	case c == '\n':
		return `\n`
	case c == '\r':
		return `\r`
	case c == '\t':
		return `\t`
	case unicode.IsPrint(c):
		return ""
	case c < 0x100:
		return fmt.Sprintf(`\x%02x`, c)
	case c < 0x10000:
		return fmt.Sprintf(`\u%04x`, c)
	}
	return fmt.Sprintf(`\U%08x`, c)
}

// escape is HTML's, as the filter of that name writes it.
func (r *run) escape(s string) string {
	t := &text{r: r}
	for {
		i := strings.IndexAny(s, `&<>'"`)
		if i < 0 {
			t.add(s)
			return string(t.b)
		}
		t.add(s[:i])
		t.add(map[byte]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\'': "&#39;", '"': "&#34;"}[s[i]])
		s = s[i+1:]
	}
}

// Casers keep state, so each use makes its own.
func upper(s string) string {
	if isASCII(s) {
		return strings.ToUpper(s)
	}
	return cases.Upper(language.Und).String(s)
}

func lower(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	return cases.Lower(language.Und).String(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// titled is one character in title case.
func titled(c rune) string {
	return cases.Title(language.Und, cases.NoLower).String(string(c))
}

// capitalize is Python's: the first character in title case, the others in lower case.
func capitalize(s string) string {
	if s == "" {
		return ""
	}
	c, n := utf8.DecodeRuneInString(s)
	return titled(c) + lower(s)[len(lower(s[:n])):]
}

// isCased reports whether a character has a case.
func isCased(c rune) bool { return unicode.IsUpper(c) || unicode.IsLower(c) || unicode.IsTitle(c) }

// title is Python's str.title.
func title(s string) string {
	var b strings.Builder
	after := false
	eachLower(s, func(c rune, low string) {
		if after {
			b.WriteString(low)
		} else {
			b.WriteString(titled(c))
		}
		after = isCased(c)
	})
	return b.String()
}

func swapCase(s string) string {
	var b strings.Builder
	eachLower(s, func(c rune, low string) {
		if unicode.IsLower(c) {
			low = upper(string(c))
		}
		b.WriteString(low)
	})
	return b.String()
}

// eachLower calls f for each character, with its small letter as it stands at the place: a final sigma is one in its
// context only.
func eachLower(s string, f func(c rune, low string)) {
	all := lower(s)
	next := characters(all)
	aligned := utf8.RuneCountInString(all) == utf8.RuneCountInString(s)
	for _, c := range s {
		low, _ := next()
		if !aligned {
			low = lower(string(c))
		}
		f(c, low.(string))
	}
}

// allOf reports whether s has characters and f holds for each.
func allOf(s string, f func(c rune) bool) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return !f(c) }) < 0
}

// oneCase reports whether s has cased characters and all of them are of the case.
func oneCase(s string, is func(rune) bool) bool {
	cased := false
	for _, c := range s {
		if !isCased(c) {
			continue
		}
		if !is(c) {
			return false
		}
		cased = true
	}
	return cased
}

func isTitle(s string) bool {
	cased, after := false, false
	for _, c := range s {
		switch {
		case unicode.IsUpper(c) || unicode.IsTitle(c):
			if after {
				return false
			}
			cased, after = true, true
		case unicode.IsLower(c):
			if !after {
				return false
			}
			cased = true
		default:
			after = false
		}
	}
	return cased
}

// splitLines is Python's str.splitlines.
func splitLines(s string, keep bool) (lines []string) {
	for s != "" {
		i := strings.IndexFunc(s, func(c rune) bool {
			return c >= '\n' && c <= '\r' || c >= 0x1c && c <= 0x1e || c == 0x85 || c == 0x2028 || c == 0x2029
		})
		if i < 0 {
			return append(lines, s)
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		if strings.HasPrefix(s[i:], "\r\n") {
			n = 2
		}
		end := i
		if keep {
			end += n
		}
		lines = append(lines, s[:end])
		s = s[i+n:]
	}
	return lines
}

// trimmer strips the characters of chars, or white space, at the sides.
func trimmer(s string, chars any, left, right bool) string {
	cut := isSpace
	if set, ok := plain(chars); ok {
		cut = func(c rune) bool { return strings.ContainsRune(set, c) }
	}
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s
}

// stringFunc is a method of strings; the arguments are in the order of its names.
type stringFunc struct {
	names    []string
	required int
	call     func(r *run, s string, a []any) any
}

// stringMethod calls a method; one of markup escapes its arguments and returns markup.
func (r *run) stringMethod(of any, name string, m stringFunc, a args) any {
	s, _ := plain(of)
	r.step(len(s) >> 6)
	if name == "format" {
		return like(of, r.format(s, a))
	}
	if !slices.Contains([]string{"split", "rsplit", "splitlines", "expandtabs"}, name) {
		a.positional(r, name)
	}
	b := a.bind(r, name, m.required, m.names...)
	_, safe := of.(markup)
	escapes := !slices.Contains([]string{"split", "rsplit", "splitlines", "startswith", "endswith", "find", "rfind",
		"index", "rindex", "count"}, name)
	for i, v := range b {
		if s, ok := v.(string); ok && safe && escapes {
			b[i] = markup(r.escape(s))
		}
	}
	v := m.call(r, s, b)
	if s, ok := v.(string); ok {
		r.allocText(len(s))
	}
	if safe {
		return marked(v)
	}
	return v
}

// marked makes markup of the strings that a method of markup returns.
func marked(v any) any {
	switch v := v.(type) {
	case string:
		return markup(v)
	case *List:
		for i := range v.items {
			v.items[i] = marked(v.items[i])
		}
	case *tuple:
		for i := range v.items {
			v.items[i] = marked(v.items[i])
		}
	}
	return v
}

// needText is an argument that must be a string.
func (r *run) needText(v any) string {
	if s, ok := plain(v); ok {
		return s
	}
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	r.fail("expected str, got '%s'", typeName(v))
	return ""
}

func mapText(f func(string) string) stringFunc {
	return stringFunc{call: func(_ *run, s string, _ []any) any { return f(s) }}
}

func askText(f func(string) bool) stringFunc {
	return stringFunc{call: func(_ *run, s string, _ []any) any { return f(s) }}
}

func stripText(left, right bool) stringFunc {
	return stringFunc{[]string{"chars"}, 0, func(r *run, s string, a []any) any {
		if a[0] != missing && a[0] != nil {
			r.needText(a[0])
		}
		return trimmer(s, a[0], left, right)
	}}
}

var stringMethods map[string]stringFunc

func init() { // the methods use the table through values
	find := []string{"sub", "start", "end"}
	fill := []string{"width", "fillchar"}
	split := []string{"sep", "maxsplit"}
	stringMethods = map[string]stringFunc{
		"capitalize": mapText(capitalize), "casefold": mapText(func(s string) string { return cases.Fold().String(s) }),
		"lower": mapText(lower), "upper": mapText(upper), "title": mapText(title), "swapcase": mapText(swapCase),
		"strip": stripText(true, true), "lstrip": stripText(true, false), "rstrip": stripText(false, true),
		"isalpha": askText(func(s string) bool { return allOf(s, unicode.IsLetter) }),
		"isalnum": askText(func(s string) bool {
			return allOf(s, func(c rune) bool { return unicode.IsLetter(c) || unicode.IsNumber(c) })
		}),
		"isdigit":     askText(func(s string) bool { return allOf(s, unicode.IsDigit) }),
		"isspace":     askText(func(s string) bool { return allOf(s, isSpace) }),
		"isprintable": askText(func(s string) bool { return s == "" || allOf(s, unicode.IsPrint) }),
		"isascii":     askText(isASCII),
		"islower":     askText(func(s string) bool { return oneCase(s, unicode.IsLower) }),
		"isupper":     askText(func(s string) bool { return oneCase(s, unicode.IsUpper) }),
		"istitle":     askText(isTitle),
		"startswith":  {[]string{"prefix", "start", "end"}, 1, func(r *run, s string, a []any) any { return r.affix(s, a, strings.HasPrefix) }},
		"endswith":    {[]string{"suffix", "start", "end"}, 1, func(r *run, s string, a []any) any { return r.affix(s, a, strings.HasSuffix) }},
		"find":        {find, 1, func(r *run, s string, a []any) any { return r.find(s, a, strings.Index, false) }},
		"rfind":       {find, 1, func(r *run, s string, a []any) any { return r.find(s, a, strings.LastIndex, false) }},
		"index":       {find, 1, func(r *run, s string, a []any) any { return r.find(s, a, strings.Index, true) }},
		"rindex":      {find, 1, func(r *run, s string, a []any) any { return r.find(s, a, strings.LastIndex, true) }},
		"count": {find, 1, func(r *run, s string, a []any) any {
			part, _, ok := r.part(s, a)
			if !ok {
				return int64(0)
			}
			return int64(strings.Count(part, r.needText(a[0])))
		}},
		"replace": {[]string{"old", "new", "count"}, 2, func(r *run, s string, a []any) any {
			n := -1
			if a[2] != missing {
				n = r.index(a[2], "replace()")
			}
			return r.replace(s, r.needText(a[0]), r.needText(a[1]), n)
		}},
		"split":  {split, 0, func(r *run, s string, a []any) any { return r.split(s, a, false) }},
		"rsplit": {split, 0, func(r *run, s string, a []any) any { return r.split(s, a, true) }},
		"splitlines": {[]string{"keepends"}, 0, func(r *run, s string, a []any) any {
			return r.texts(splitLines(s, a[0] != missing && r.truth(a[0])))
		}},
		"partition":  {[]string{"sep"}, 1, func(r *run, s string, a []any) any { return r.partition(s, a[0], false) }},
		"rpartition": {[]string{"sep"}, 1, func(r *run, s string, a []any) any { return r.partition(s, a[0], true) }},
		"join": {[]string{"iterable"}, 1, func(r *run, s string, a []any) any {
			return r.joinText(s, a[0], func(i int, v any) string {
				s, ok := plain(v)
				if !ok {
					r.fail("sequence item %d: expected str instance, %s found", i, typeName(v))
				}
				return s
			})
		}},
		"center": {fill, 1, func(r *run, s string, a []any) any {
			w, c := r.width(s, a)
			left := w/2 + w&int(r.index(a[0], "center()"))&1
			return r.padded(s, c, left, w-left)
		}},
		"ljust": {fill, 1, func(r *run, s string, a []any) any { w, c := r.width(s, a); return r.padded(s, c, 0, w) }},
		"rjust": {fill, 1, func(r *run, s string, a []any) any { w, c := r.width(s, a); return r.padded(s, c, w, 0) }},
		"zfill": {[]string{"width"}, 1, func(r *run, s string, a []any) any {
			n := r.index(a[0], "zfill()") - r.runes(s)
			sign := 0
			if s != "" && (s[0] == '-' || s[0] == '+') {
				sign = 1
			}
			return s[:sign] + r.padded(s[sign:], "0", n, 0)
		}},
		"expandtabs": {[]string{"tabsize"}, 0, func(r *run, s string, a []any) any {
			n := 8
			if a[0] != missing {
				n = r.index(a[0], "expandtabs()")
			}
			return r.expandTabs(s, n)
		}},
		"removeprefix": {[]string{"prefix"}, 1, func(r *run, s string, a []any) any {
			return strings.TrimPrefix(s, r.needText(a[0]))
		}},
		"removesuffix": {[]string{"suffix"}, 1, func(r *run, s string, a []any) any {
			return strings.TrimSuffix(s, r.needText(a[0]))
		}},
		"format": {},
	}
}

// part cuts s to the characters from start to end, which are the second and third argument; at is where it begins. ok is
// false where start lies behind the end of s, where not even "" is found.
func (r *run) part(s string, a []any) (part string, at int, ok bool) {
	b := [3]any{}
	for i, v := range a[1:] {
		if v != missing {
			b[i] = v
		}
	}
	if b[0] == nil && b[1] == nil {
		return s, 0, true
	}
	n := r.runes(s)
	if b[0] != nil && r.index(b[0], "slice") > n {
		return "", n, false
	}
	at, _, count := r.sliceRange(n, b)
	if b[1] != nil {
		if end := r.index(b[1], "slice"); end < at && end >= 0 || end < 0 && end+n < at {
			return "", at, false
		}
	}
	return r.sliceText(s, [3]any{int64(at), int64(at + count)}), at, true
}

func (r *run) affix(s string, a []any, has func(s, affix string) bool) any {
	s, _, ok := r.part(s, a)
	if !ok {
		return false
	}
	if t, ok := a[0].(*tuple); ok {
		return slices.ContainsFunc(t.items, func(v any) bool { return has(s, r.needText(v)) })
	}
	return has(s, r.needText(a[0]))
}

func (r *run) find(s string, a []any, find func(s, sub string) int, must bool) any {
	sub := r.needText(a[0])
	part, at, ok := r.part(s, a)
	i := -1
	if ok {
		i = find(part, sub)
	}
	if i < 0 && must {
		r.fail("substring not found")
	}
	if i < 0 {
		return int64(-1)
	}
	return int64(at + r.runes(part[:i]))
}

// replace is strings.Replace within the limits.
func (r *run) replace(s, old, new string, n int) string {
	r.step(len(s) >> 6)
	times := strings.Count(s, old)
	if n >= 0 && n < times {
		times = n
	}
	if grow := len(new) - len(old); grow > 0 && times > 0 {
		if grow > (r.maxText-min(len(s), r.maxText))/times {
			r.allocText(r.maxText + 1)
		}
	}
	return strings.Replace(s, old, new, times)
}

// texts is a list of strings.
func (r *run) texts(all []string) *List {
	r.alloc(48 * len(all))
	r.step(len(all))
	l := &List{make([]any, len(all))}
	for i, s := range all {
		l.items[i] = s
	}
	return l
}

// split is str.split and, from the right, str.rsplit.
func (r *run) split(s string, a []any, right bool) any {
	n := -1
	if a[1] != missing {
		n = r.index(a[1], "split()")
	}
	if a[0] == missing || a[0] == nil {
		return r.texts(r.fields(s, n, right))
	}
	sep := r.needText(a[0])
	if sep == "" {
		r.fail("empty separator")
	}
	count := strings.Count(s, sep)
	if n < 0 || n > count {
		n = count
	}
	r.alloc(16 * n)
	if !right {
		return r.texts(strings.SplitN(s, sep, n+1))
	}
	parts := make([]string, n+1)
	for i := n; i > 0; i-- {
		at := strings.LastIndex(s, sep)
		parts[i] = s[at+len(sep):]
		s = s[:at]
	}
	parts[0] = s
	return r.texts(parts)
}

// fields splits at white space, at most n times if n is not negative.
func (r *run) fields(s string, n int, right bool) (parts []string) {
	if right {
		s = strings.TrimRightFunc(s, isSpace)
		for n != 0 && s != "" {
			i := strings.LastIndexFunc(s, isSpace)
			if i < 0 {
				break
			}
			_, width := utf8.DecodeRuneInString(s[i:])
			parts = append(parts, s[i+width:])
			s = strings.TrimRightFunc(s[:i], isSpace)
			n--
		}
		if s != "" {
			parts = append(parts, s)
		}
		slices.Reverse(parts)
		return parts
	}
	s = strings.TrimLeftFunc(s, isSpace)
	for n != 0 && s != "" {
		i := strings.IndexFunc(s, isSpace)
		if i < 0 {
			break
		}
		parts = append(parts, s[:i])
		s = strings.TrimLeftFunc(s[i:], isSpace)
		n--
	}
	if s != "" {
		parts = append(parts, s)
	}
	return parts
}

func (r *run) partition(s string, sep any, right bool) any {
	by := r.needText(sep)
	if by == "" {
		r.fail("empty separator")
	}
	find := strings.Index
	if right {
		find = strings.LastIndex
	}
	i := find(s, by)
	r.alloc(100)
	switch {
	case i >= 0:
		return &tuple{items: []any{s[:i], by, s[i+len(by):]}}
	case right:
		return &tuple{items: []any{"", "", s}}
	}
	return &tuple{items: []any{s, "", ""}}
}

// joinText writes the elements of v with sep between them.
func (r *run) joinText(sep string, v any, str func(i int, v any) string) string {
	t := &text{r: r}
	next := r.iterate(v)
	for i := 0; ; i++ {
		item, ok := next()
		if !ok {
			return string(t.b)
		}
		r.step(1)
		if i > 0 {
			t.add(sep)
		}
		t.add(str(i, item))
	}
}

// width is how many characters are missing to a width, and what to fill them with.
func (r *run) width(s string, a []any) (int, string) {
	fill := " "
	if a[1] != missing {
		if fill = r.needText(a[1]); utf8.RuneCountInString(fill) != 1 {
			r.fail("The fill character must be exactly one character long")
		}
	}
	return max(r.index(a[0], "width")-r.runes(s), 0), fill
}

// padded writes a text between fillings.
func (r *run) padded(s, fill string, left, right int) string {
	t := &text{r: r}
	t.pad(fill, left)
	t.add(s)
	t.pad(fill, right)
	return string(t.b)
}

func (r *run) expandTabs(s string, size int) string {
	t := &text{r: r}
	col := 0
	for _, c := range s {
		switch {
		case c == '\t':
			if size > 0 {
				n := size - col%size
				t.pad(" ", n)
				col += n
			}
			continue
		case c == '\n' || c == '\r':
			col = 0
		default:
			col++
		}
		t.add(string(c))
	}
	return string(t.b)
}
