package jinja

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// format is Python's str.format in Jinja's sandbox.
func (r *run) format(s string, a args) string {
	f := &formatter{r: r, args: a}
	t := &text{r: r}
	f.expand(t, s, 2)
	return string(t.b)
}

// formatter counts the fields that have no number.
type formatter struct {
	r      *run
	args   args
	auto   int
	manual bool
}

// expand writes a format string; depth is how deeply its fields may hold others.
func (f *formatter) expand(t *text, s string, depth int) {
	if depth == 0 {
		f.r.fail("Max string recursion exceeded")
	}
	for {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			t.add(s)
			return
		}
		t.add(s[:i])
		c := s[i]
		s = s[i+1:]
		if strings.HasPrefix(s, string(c)) {
			t.addByte(c)
			s = s[1:]
			continue
		}
		if c == '}' {
			f.r.fail("Single '}' encountered in format string")
		}
		end := fieldEnd(s)
		if end < 0 {
			f.r.fail("expected '}' before end of string")
		}
		f.r.step(1)
		f.field(t, s[:end], depth)
		s = s[end+1:]
	}
}

// fieldEnd returns where the bracket is that closes a field.
func fieldEnd(s string) int {
	open := 1
	for i := range len(s) {
		switch s[i] {
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return i
			}
		}
	}
	return -1
}

func (f *formatter) field(t *text, s string, depth int) {
	name, spec := s, ""
	conversion := byte(0)
	bracket := false
	for i := range len(s) {
		if c := s[i]; c == '[' {
			bracket = true
		} else if c == ']' {
			bracket = false
		} else if (c == ':' || c == '!') && !bracket {
			name, spec = s[:i], s[i:]
			break
		}
	}
	if strings.HasPrefix(spec, "!") {
		if len(spec) < 2 || len(spec) > 2 && spec[2] != ':' {
			f.r.fail("expected ':' after conversion specifier")
		}
		conversion, spec = spec[1], spec[2:]
	}
	v := f.value(name)
	if strings.Contains(spec, "{") {
		inner := &text{r: f.r}
		f.expand(inner, spec, depth-1)
		spec = string(inner.b)
	}
	switch conversion {
	case 0:
	case 's':
		v = f.r.str(v)
	case 'r':
		v = f.r.repr(v)
	case 'a':
		v = ascii(f.r.repr(v))
	default:
		f.r.fail("Unknown conversion specifier %q", conversion)
	}
	t.add(f.r.formatValue(v, strings.TrimPrefix(spec, ":")))
}

// ascii writes what is not ASCII as escapes.
func ascii(s string) string {
	var b strings.Builder
	for _, c := range s {
		switch {
		case c < utf8.RuneSelf:
			b.WriteRune(c)
		case c < 0x100:
			fmt.Fprintf(&b, `\x%02x`, c)
		case c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
	}
	return b.String()
}

// value finds what a field names: an argument, and attributes and elements from there.
func (f *formatter) value(name string) any {
	i := strings.IndexAny(name, ".[")
	if i < 0 {
		i = len(name)
	}
	v := f.argument(name[:i])
	for rest := name[i:]; rest != ""; {
		if rest[0] == '.' {
			end := strings.IndexAny(rest[1:], ".[") + 1
			if end == 0 {
				end = len(rest)
			}
			v = f.r.getAttr(v, rest[1:end])
			rest = rest[end:]
			continue
		}
		end := strings.IndexByte(rest, ']')
		if rest[0] != '[' || end < 0 {
			f.r.fail("Missing ']' in format string")
		}
		v = f.r.getItem(v, indexOrName(rest[1:end]))
		rest = rest[end+1:]
	}
	return v
}

func indexOrName(s string) any {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return int64(n)
	}
	return s
}

func (f *formatter) argument(name string) any {
	if name == "" {
		name = strconv.Itoa(f.auto)
		f.auto++
		if f.manual {
			f.r.fail("cannot switch from manual field specification to automatic field numbering")
		}
	} else if _, ok := indexOrName(name).(int64); ok {
		if f.auto > 0 {
			f.r.fail("cannot switch from automatic field numbering to manual field specification")
		}
		f.manual = true
	}
	switch i := indexOrName(name).(type) {
	case int64:
		if int(i) < len(f.args.pos) {
			return f.args.pos[i]
		}
		f.r.fail("Replacement index %d out of range for positional args tuple", i)
	case string:
		for n, key := range f.args.names {
			if key == i {
				return f.args.named[n]
			}
		}
		f.r.fail("%s", f.r.repr(name))
	}
	return nil
}

// spec is Python's format specification.
type spec struct {
	fill      string
	align     byte
	sign      byte
	alt, zero bool
	width     int
	group     string
	precision int // -1: none
	verb      byte
}

// formatValue is Python's format().
func (r *run) formatValue(v any, s string) string {
	if s == "" {
		return r.str(v)
	}
	p := r.parseSpec(s)
	switch v := v.(type) {
	case string, markup:
		str, _ := plain(v)
		return r.formatText(str, p)
	case bool, int64, *big.Int:
		b, _ := asBig(v)
		return r.formatInt(b, p)
	case float64:
		return r.formatFloat(v, p)
	case *undefined: // Python leaves it to the str of an object, which takes no specification
	}
	r.fail("unsupported format string passed to %s.__format__", typeName(v))
	return ""
}

func (r *run) parseSpec(s string) spec {
	p := spec{fill: " ", precision: -1}
	bad := func() { r.fail("Invalid format specifier '%s'", s) }
	rest := s
	_, n := utf8.DecodeRuneInString(rest)
	if len(rest) > n && strings.IndexByte("<>=^", rest[n]) >= 0 {
		p.fill, p.align, rest = rest[:n], rest[n], rest[n+1:]
	} else if strings.IndexByte("<>=^", rest[0]) >= 0 {
		p.align, rest = rest[0], rest[1:]
	}
	take := func(set string) byte {
		if rest != "" && strings.IndexByte(set, rest[0]) >= 0 {
			c := rest[0]
			rest = rest[1:]
			return c
		}
		return 0
	}
	number := func() (int, bool) {
		n := 0
		for n < len(rest) && decimal(rest[n]) {
			n++
		}
		v, err := strconv.Atoi(rest[:n])
		if n > 0 && (err != nil || v > math.MaxInt32) {
			r.fail("Too many decimal digits in format string")
		}
		rest = rest[n:]
		return v, n > 0
	}
	p.sign = take("+- ")
	p.alt = take("#") != 0
	if take("0") != 0 {
		p.zero = true
	}
	p.width, _ = number()
	if c := take(",_"); c != 0 {
		p.group = string(c)
	}
	if take(".") != 0 {
		v, ok := number()
		if !ok {
			r.fail("Format specifier missing precision")
		}
		p.precision = v
	}
	if len(rest) > 1 {
		bad()
	}
	if rest != "" {
		p.verb = rest[0]
	}
	return p
}

func (r *run) formatText(s string, p spec) string {
	if p.verb != 0 && p.verb != 's' {
		r.fail("Unknown format code '%c' for object of type 'str'", p.verb)
	}
	if p.sign != 0 || p.alt || p.group != "" || p.align == '=' {
		r.fail("the format specification does not suit a str")
	}
	if p.precision >= 0 && r.runes(s) > p.precision {
		s = r.sliceText(s, [3]any{nil, int64(p.precision)})
	}
	if p.zero && p.align == 0 {
		p.fill = "0"
	}
	return r.align(s, p, '<')
}

// align fills a text up to the width.
func (r *run) align(s string, p spec, def byte) string {
	n := max(p.width-r.runes(s), 0)
	if p.align == 0 {
		p.align = def
	}
	switch p.align {
	case '<':
		return r.padded(s, p.fill, 0, n)
	case '^':
		return r.padded(s, p.fill, n/2, n-n/2)
	}
	return r.padded(s, p.fill, n, 0)
}

// number puts sign, prefix and digits together: zeros go between them.
func (r *run) number(negative bool, prefix, digits string, p spec, every int) string {
	sign := ""
	if negative {
		sign = "-"
	} else if p.sign == '+' || p.sign == ' ' {
		sign = string(p.sign)
	}
	if p.zero && p.align == 0 {
		p.align, p.fill = '=', "0"
	}
	head := sign + prefix
	if p.group != "" {
		digits = r.grouped(digits, p, every, p.width-len(head))
	}
	if p.align == '=' {
		return head + r.padded(digits, p.fill, p.width-len(head)-len(digits), 0)
	}
	return r.align(head+digits, p, '>')
}

// grouped puts separators between digits; zeros that fill up to a width are grouped as well.
func (r *run) grouped(digits string, p spec, every, width int) string {
	n := 0
	for n < len(digits) && isAlnum(digits[n]) {
		n++
	}
	whole, rest := digits[:n], digits[n:]
	if p.align == '=' && p.fill == "0" {
		for len(whole)+(len(whole)-1)/every+len(rest) < width {
			whole = "0" + whole
			r.alloc(len(whole))
		}
	}
	var parts []string
	for len(whole) > every {
		parts = append([]string{whole[len(whole)-every:]}, parts...)
		whole = whole[:len(whole)-every]
		r.alloc(16 * len(parts))
	}
	return strings.Join(append([]string{whole}, parts...), p.group) + rest
}

func isAlnum(c byte) bool { return decimal(c) || 'a' <= c|0x20 && c|0x20 <= 'z' }

func (r *run) formatInt(b *big.Int, p spec) string {
	if strings.IndexByte("eEfFgG%", p.verb) >= 0 && p.verb != 0 {
		return r.formatFloat(r.float(b), p)
	}
	if p.precision >= 0 {
		r.fail("Precision not allowed in integer format specifier")
	}
	base, prefix, every := 10, "", 3
	switch p.verb {
	case 0, 'd', 'n':
		r.integer(normInt(b)) // the limit of digits
	case 'b':
		base, prefix, every = 2, "0b", 4
	case 'o':
		base, prefix, every = 8, "0o", 4
	case 'x', 'X':
		base, prefix, every = 16, "0"+string(p.verb), 4
	case 'c':
		if !b.IsInt64() || b.Int64() < 0 || b.Int64() > utf8.MaxRune || !utf8.ValidRune(rune(b.Int64())) {
			r.fail("%%c arg not in range(0x110000)")
		}
		return r.align(string(rune(b.Int64())), p, '<')
	default:
		r.fail("Unknown format code '%c' for object of type 'int'", p.verb)
	}
	if !p.alt {
		prefix = ""
	}
	digits := new(big.Int).Abs(b).Text(base)
	if p.verb == 'X' {
		digits = strings.ToUpper(digits)
	}
	return r.number(b.Sign() < 0, prefix, digits, p, every)
}

func (r *run) formatFloat(f float64, p spec) string {
	verb, precision := p.verb, p.precision
	percent := ""
	switch verb {
	case 0:
	case 'e', 'E', 'f', 'F', 'g', 'G':
	case 'n':
		verb = 'g'
	case '%':
		verb, percent = 'f', "%"
		f *= 100
	default:
		r.fail("Unknown format code '%c' for object of type 'float'", verb)
	}
	digits := r.floatDigits(math.Abs(f), verb, precision, p.alt) + percent
	return r.number(math.Signbit(f) && !math.IsNaN(f), "", digits, p, 3)
}

// floatDigits writes a float that is not negative.
func (r *run) floatDigits(f float64, verb byte, precision int, alt bool) string {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		s := strings.TrimPrefix(floatRepr(f), "-")
		if verb == 'F' || verb == 'E' || verb == 'G' {
			s = strings.ToUpper(s)
		}
		return s
	}
	if precision > r.maxText {
		r.allocText(precision)
	}
	if verb == 0 && precision < 0 {
		return floatRepr(f)
	}
	if precision < 0 {
		precision = 6
	}
	// More digits than a float can have are zeros.
	const most = 1100
	zeros := max(precision-most, 0)
	var s string
	switch verb {
	case 'f', 'F':
		s = strconv.FormatFloat(f, 'f', precision-zeros, 64)
		if alt && precision == 0 {
			s += "."
		}
	case 'e', 'E':
		s = strconv.FormatFloat(f, verb, precision-zeros, 64)
		if alt && precision == 0 {
			s = s[:1] + "." + s[1:]
		}
		if zeros > 0 {
			i := strings.IndexByte(s, verb)
			return r.padded(s[:i], "0", 0, zeros) + s[i:]
		}
	default:
		return general(f, verb, min(precision, most), alt)
	}
	return r.padded(s, "0", 0, zeros)
}

// general is the verb g, and with verb 0 a float with a precision: at least one digit follows the point then.
func general(f float64, verb byte, precision int, alt bool) string {
	precision = max(precision, 1)
	e := strconv.FormatFloat(f, 'e', precision-1, 64)
	i := strings.IndexByte(e, 'e')
	exp, _ := strconv.Atoi(e[i+1:])
	limit := precision
	if verb == 0 {
		limit-- // 100.0 with precision 3 is 1e+02
	}
	trim := func(s string) string {
		if alt || !strings.Contains(s, ".") {
			return s
		}
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	if exp < -4 || exp >= limit {
		s := trim(e[:i]) + e[i:]
		if verb == 'G' {
			s = strings.ToUpper(s)
		}
		return s
	}
	s := trim(strconv.FormatFloat(f, 'f', max(precision-1-exp, 0), 64))
	if verb == 0 && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// printf is Python's % on strings; for markup it escapes what it writes.
func (r *run) printf(s string, v any, safe bool) string {
	p := &printer{r: r, args: []any{v}, safe: safe}
	if t, ok := v.(*tuple); ok {
		p.args = t.items
	}
	p.dict, _ = v.(*Dict)
	t := &text{r: r}
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			t.add(s)
			break
		}
		t.add(s[:i])
		r.step(1)
		s = p.verb(t, s[i+1:])
	}
	if p.used < len(p.args) && !subscriptable(v) {
		r.fail("not all arguments converted during string formatting")
	}
	return string(t.b)
}

// subscriptable reports whether Python takes v for the mapping of a % that names no argument.
func subscriptable(v any) bool {
	switch v.(type) {
	case *Dict, *List, *rangeValue, *undefined:
		return true
	}
	return false
}

type printer struct {
	r    *run
	args []any
	used int
	dict *Dict
	safe bool
}

func (p *printer) next() any {
	if p.used >= len(p.args) {
		p.r.fail("not enough arguments for format string")
	}
	p.used++
	return p.args[p.used-1]
}

// verb writes one conversion and returns what follows it.
func (p *printer) verb(t *text, s string) string {
	sp := spec{fill: " ", precision: -1}
	named := any(missing)
	if strings.HasPrefix(s, "(") {
		end := strings.IndexByte(s, ')')
		if end < 0 {
			p.r.fail("incomplete format key")
		}
		if p.dict == nil {
			p.r.fail("format requires a mapping")
		}
		v, ok := p.dict.get(s[1:end])
		if !ok {
			p.r.fail("%s", p.r.repr(s[1:end]))
		}
		named, s = v, s[end+1:]
	}
	for s != "" && strings.IndexByte("#0- +", s[0]) >= 0 {
		switch s[0] {
		case '#':
			sp.alt = true
		case '0':
			sp.zero = true
		case '-':
			sp.align = '<'
		case '+':
			sp.sign = '+'
		case ' ':
			if sp.sign == 0 {
				sp.sign = ' '
			}
		}
		s = s[1:]
	}
	sp.width, s = p.count(s)
	if sp.width < 0 {
		sp.align, sp.width = '<', -sp.width
	}
	if strings.HasPrefix(s, ".") {
		sp.precision, s = p.count(s[1:])
		sp.precision = max(sp.precision, 0)
	}
	s = strings.TrimLeft(s, "hlL")
	if s == "" {
		p.r.fail("incomplete format")
	}
	verb := s[0]
	if verb == '%' {
		t.addByte('%')
		return s[1:]
	}
	v := named
	if v == missing {
		v = p.next()
	}
	t.add(p.convert(v, verb, sp))
	return s[1:]
}

// count reads a width or precision, which may be an argument.
func (p *printer) count(s string) (int, string) {
	if strings.HasPrefix(s, "*") {
		return p.r.index(p.next(), "* wants int"), s[1:]
	}
	n := 0
	for n < len(s) && decimal(s[n]) {
		n++
	}
	v, err := strconv.Atoi(s[:n])
	if n > 0 && (err != nil || v > math.MaxInt32) {
		p.r.fail("width too big")
	}
	return v, s[n:]
}

func (p *printer) convert(v any, verb byte, sp spec) string {
	r := p.r
	if sp.align == '<' {
		sp.zero = false
	}
	switch verb {
	case 's', 'r', 'a', 'c':
		s := ""
		switch verb {
		case 's':
			s = r.str(v)
			if _, is := v.(markup); p.safe && !is {
				s = r.escape(s)
			}
		case 'r':
			s = r.repr(v)
		case 'a':
			s = ascii(r.repr(v))
		default:
			if s, _ = plain(v); r.runes(s) != 1 {
				i, ok := asInt(v)
				if !ok || i < 0 || i > utf8.MaxRune || !utf8.ValidRune(rune(i)) {
					r.fail("%%c requires int or char")
				}
				s = string(rune(i))
			}
			sp.precision = -1
		}
		sp.zero, sp.alt, sp.sign, sp.verb = false, false, 0, 0
		if sp.align == 0 {
			sp.align = '>'
		}
		return r.formatText(s, sp)
	case 'd', 'i', 'u', 'o', 'x', 'X':
		return p.integer(v, verb, sp)
	case 'e', 'E', 'f', 'F', 'g', 'G':
		if !isNumber(v) {
			r.fail("must be real number, not %s", typeName(v))
		}
		sp.verb = verb
		return r.formatFloat(r.float(v), sp)
	}
	r.fail("unsupported format character '%c' (%#x)", verb, verb)
	return ""
}

func (p *printer) integer(v any, verb byte, sp spec) string {
	r := p.r
	b, ok := asBig(v)
	if f, isFloat := v.(float64); isFloat && (verb == 'd' || verb == 'i' || verb == 'u') {
		b, ok = asBig(r.truncated(f))
	}
	if !ok {
		r.fail("%%%c format: a real number is required, not %s", verb, typeName(v))
	}
	sp.verb = verb
	if verb == 'i' || verb == 'u' {
		sp.verb = 'd'
	}
	if sp.precision >= 0 { // at least so many digits
		s := r.formatInt(new(big.Int).Abs(b), spec{fill: " ", precision: -1, verb: sp.verb})
		s = r.padded(s, "0", sp.precision-len(s), 0)
		prefix := ""
		if sp.alt && sp.verb != 'd' {
			prefix = "0" + string(sp.verb)
		}
		return r.number(b.Sign() < 0, prefix, s, sp, 3)
	}
	return r.formatInt(b, sp)
}

// truncated is a float without its fraction, as an integer.
func (r *run) truncated(f float64) any {
	if math.IsNaN(f) {
		r.fail("cannot convert float NaN to integer")
	}
	if math.IsInf(f, 0) {
		r.fail("cannot convert float infinity to integer")
	}
	b, _ := big.NewFloat(f).Int(nil)
	return normInt(b)
}
