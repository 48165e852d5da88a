package jinja

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/strictjson"
)

// FromJSON reads a value: objects keep the order of their keys, numbers are Python's.
func FromJSON(text []byte) (any, error) {
	v, err := strictjson.Parse(text)
	if err != nil {
		return nil, err
	}
	return FromGo(v)
}

// FromGo makes a value of nil, bool, string, numbers, json.Number, json.RawMessage, slices and *strictjson.Object, and
// of maps, whose keys it sorts.
func FromGo(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64, string:
		return v, nil
	case int:
		return int64(v), nil
	case json.Number:
		return fromNumber(string(v))
	case json.RawMessage:
		return FromJSON(v)
	case []string:
		l := &List{make([]any, len(v))}
		for i, s := range v {
			l.items[i] = s
		}
		return l, nil
	case []any:
		l := &List{make([]any, len(v))}
		for i, e := range v {
			var err error
			if l.items[i], err = FromGo(e); err != nil {
				return nil, err
			}
		}
		return l, nil
	case *strictjson.Object:
		d := NewDict()
		for _, k := range v.Keys {
			e, _ := v.Get(k)
			e, err := FromGo(e)
			if err != nil {
				return nil, err
			}
			d.Set(k, e)
		}
		return d, nil
	case map[string]any:
		d := NewDict()
		for _, k := range slices.Sorted(maps.Keys(v)) {
			e, err := FromGo(v[k])
			if err != nil {
				return nil, err
			}
			d.Set(k, e)
		}
		return d, nil
	}
	return nil, fmt.Errorf("a value of type %T is none that a template can use", v)
}

func fromNumber(s string) (any, error) {
	if strings.ContainsAny(s, ".eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil && !math.IsInf(f, 0) {
			return nil, fmt.Errorf("%q is not a number", s)
		}
		return f, nil
	}
	if len(strings.TrimPrefix(s, "-")) > maxDigits {
		return nil, fmt.Errorf("an integer of %d digits, more than %d", len(s), maxDigits)
	}
	b, ok := new(big.Int).SetString(s, 10)
	if !ok {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	return normInt(b), nil
}

// dumper writes JSON as Python's json.dumps.
type dumper struct {
	r        *run
	t        *text
	ascii    bool
	sortKeys bool
	pretty   bool
	indent   string
	item     string
	key      string
}

// toJSON is Transformers' filter tojson.
func toJSON(r *run, v any, a args) any {
	b := a.bind(r, "tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys")
	d := &dumper{r: r, t: &text{r: r}, item: ", ", key: ": "}
	d.ascii = b[0] != missing && r.truth(b[0])
	d.sortKeys = b[3] != missing && r.truth(b[3])
	if b[1] != missing && b[1] != nil {
		d.pretty, d.item = true, ","
		if s, ok := plain(b[1]); ok {
			d.indent = s
		} else {
			d.indent = r.padded("", " ", r.index(b[1], "indent"), 0)
		}
	}
	if b[2] != missing && b[2] != nil {
		s := r.elements(b[2], 3)
		if len(s) != 2 {
			r.fail("separators must be two strings, got %d", len(s))
		}
		d.item, d.key = r.needText(s[0]), r.needText(s[1])
	}
	d.dump(v, 0)
	return string(d.t.b)
}

func (d *dumper) dump(v any, depth int) {
	d.r.step(1)
	if depth > valueDepth {
		d.r.fail("a value is nested deeper than %d", valueDepth)
	}
	switch v := v.(type) {
	case nil:
		d.t.add("null")
	case bool:
		d.t.add(strconv.FormatBool(v))
	case int64, *big.Int:
		d.t.add(d.r.integer(v))
	case float64:
		d.t.add(jsonFloat(v))
	case string:
		d.quote(v)
	case markup:
		d.quote(string(v))
	case *List:
		d.list(v.items, depth)
	case *tuple:
		d.list(v.items, depth)
	case *Dict:
		d.dict(v, depth)
	default:
		d.r.fail("Object of type %s is not JSON serializable", typeName(v))
	}
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func (d *dumper) newline(depth int) {
	if d.pretty {
		d.t.add("\n")
		d.t.pad(d.indent, depth)
	}
}

func (d *dumper) list(items []any, depth int) {
	if len(items) == 0 {
		d.t.add("[]")
		return
	}
	d.t.add("[")
	for i, item := range items {
		if i > 0 {
			d.t.add(d.item)
		}
		d.newline(depth + 1)
		d.dump(item, depth+1)
	}
	d.newline(depth)
	d.t.add("]")
}

func (d *dumper) dict(v *Dict, depth int) {
	if len(v.entries) == 0 {
		d.t.add("{}")
		return
	}
	entries := v.entries
	if d.sortKeys {
		d.r.alloc(48 * len(entries))
		entries = slices.Clone(entries)
		slices.SortStableFunc(entries, func(a, b entry) int {
			c, _ := d.r.order("<", a.key, b.key, 0)
			return c
		})
	}
	d.t.add("{")
	for i, e := range entries {
		if i > 0 {
			d.t.add(d.item)
		}
		d.newline(depth + 1)
		d.quote(d.name(e.key))
		d.t.add(d.key)
		d.dump(e.value, depth+1)
	}
	d.newline(depth)
	d.t.add("}")
}

// name is a key as JSON has it: a string.
func (d *dumper) name(key any) string {
	switch key := key.(type) {
	case string, markup:
		s, _ := plain(key)
		return s
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(key)
	case int64, *big.Int:
		return d.r.integer(key)
	case float64:
		return jsonFloat(key)
	}
	d.r.fail("keys must be str, int, float, bool or None, not %s", typeName(key))
	return ""
}

func (d *dumper) quote(s string) {
	t := d.t
	t.addByte('"')
	from := 0
	for i, n := 0, 0; i < len(s); i += n {
		c, width := utf8.DecodeRuneInString(s[i:])
		n = width // 1 for a byte that is no UTF-8
		e := ""
		switch {
		case c == '"' || c == '\\':
			e = `\` + string(c)
		case c == '\n':
			e = `\n`
		case c == '\r':
			e = `\r`
		case c == '\t':
			e = `\t`
		case c == '\f':
			e = `\f`
		case c == '\b':
			e = `\b`
		case c < ' ' || d.ascii && c > '~' && c < 0x10000:
			e = fmt.Sprintf(`\u%04x`, c)
		case d.ascii && c >= 0x10000:
			e = fmt.Sprintf(`\u%04x\u%04x`, 0xd800+(c-0x10000)>>10, 0xdc00+(c-0x10000)&0x3ff)
		default:
			continue
		}
		t.add(s[from:i])
		t.add(e)
		from = i + n
	}
	t.add(s[from:])
	t.addByte('"')
}
