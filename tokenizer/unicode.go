package tokenizer

import (
	"strings"
	"unicode"
)

// The reference classifies characters by Unicode 16, Go by Unicode 15. These are the letters and numbers that came
// between; testdata/tokenizer has a case for each range.
var (
	newLetters = &unicode.RangeTable{
		R16: []unicode.Range16{
			{0x1c89, 0x1c8a, 1}, {0xa7cb, 0xa7cd, 1}, {0xa7da, 0xa7dc, 1},
		},
		R32: []unicode.Range32{
			{0x105c0, 0x105f3, 1}, {0x10d4a, 0x10d65, 1}, {0x10d6f, 0x10d85, 1}, {0x10ec2, 0x10ec4, 1},
			{0x11380, 0x11389, 1}, {0x1138b, 0x1138b, 1}, {0x1138e, 0x1138e, 1}, {0x11390, 0x113b5, 1},
			{0x113b7, 0x113b7, 1}, {0x113d1, 0x113d1, 1}, {0x113d3, 0x113d3, 1}, {0x11bc0, 0x11be0, 1},
			{0x13460, 0x143fa, 1}, {0x16100, 0x1611d, 1}, {0x16d40, 0x16d6c, 1}, {0x18cff, 0x18cff, 1},
			{0x1e5d0, 0x1e5ed, 1}, {0x1e5f0, 0x1e5f0, 1}, {0x2ebf0, 0x2ee5d, 1},
		},
	}
	newNumbers = &unicode.RangeTable{
		R32: []unicode.Range32{
			{0x10d40, 0x10d49, 1}, {0x116d0, 0x116e3, 1}, {0x11bf0, 0x11bf9, 1}, {0x16130, 0x16139, 1},
			{0x16d70, 0x16d79, 1}, {0x1ccf0, 0x1ccf9, 1}, {0x1e5f1, 0x1e5fa, 1},
		},
	}
)

// newCategories are the characters that came between, by general category.
var newCategories = map[string]*unicode.RangeTable{
	"Lu": {R16: []unicode.Range16{{0x1c89, 0x1c89, 1}, {0xa7cb, 0xa7cc, 1}, {0xa7da, 0xa7da, 1}, {0xa7dc, 0xa7dc, 1}}, R32: []unicode.Range32{{0x10d50, 0x10d65, 1}}},
	"Ll": {R16: []unicode.Range16{{0x1c8a, 0x1c8a, 1}, {0xa7cd, 0xa7cd, 1}, {0xa7db, 0xa7db, 1}}, R32: []unicode.Range32{{0x10d70, 0x10d85, 1}}},
	"Lm": {R32: []unicode.Range32{{0x10d4e, 0x10d4e, 1}, {0x10d6f, 0x10d6f, 1}, {0x16d40, 0x16d42, 1}, {0x16d6b, 0x16d6c, 1}}},
	"Lo": {R32: []unicode.Range32{{0x105c0, 0x105f3, 1}, {0x10d4a, 0x10d4d, 1}, {0x10d4f, 0x10d4f, 1}, {0x10ec2, 0x10ec4, 1}, {0x11380, 0x11389, 1}, {0x1138b, 0x1138b, 1}, {0x1138e, 0x1138e, 1}, {0x11390, 0x113b5, 1}, {0x113b7, 0x113b7, 1}, {0x113d1, 0x113d1, 1}, {0x113d3, 0x113d3, 1}, {0x11bc0, 0x11be0, 1}, {0x13460, 0x143fa, 1}, {0x16100, 0x1611d, 1}, {0x16d43, 0x16d6a, 1}, {0x18cff, 0x18cff, 1}, {0x1e5d0, 0x1e5ed, 1}, {0x1e5f0, 0x1e5f0, 1}, {0x2ebf0, 0x2ee5d, 1}}},
	"Mn": {R16: []unicode.Range16{{0x897, 0x897, 1}}, R32: []unicode.Range32{{0x10d69, 0x10d6d, 1}, {0x10efc, 0x10efc, 1}, {0x113bb, 0x113c0, 1}, {0x113ce, 0x113ce, 1}, {0x113d0, 0x113d0, 1}, {0x113d2, 0x113d2, 1}, {0x113e1, 0x113e2, 1}, {0x11f5a, 0x11f5a, 1}, {0x1611e, 0x16129, 1}, {0x1612d, 0x1612f, 1}, {0x1e5ee, 0x1e5ef, 1}}},
	"Mc": {R32: []unicode.Range32{{0x113b8, 0x113ba, 1}, {0x113c2, 0x113c2, 1}, {0x113c5, 0x113c5, 1}, {0x113c7, 0x113ca, 1}, {0x113cc, 0x113cd, 1}, {0x113cf, 0x113cf, 1}, {0x1612a, 0x1612c, 1}}},
	"Nd": {R32: []unicode.Range32{{0x10d40, 0x10d49, 1}, {0x116d0, 0x116e3, 1}, {0x11bf0, 0x11bf9, 1}, {0x16130, 0x16139, 1}, {0x16d70, 0x16d79, 1}, {0x1ccf0, 0x1ccf9, 1}, {0x1e5f1, 0x1e5fa, 1}}},
	"Pd": {R32: []unicode.Range32{{0x10d6e, 0x10d6e, 1}}},
	"Po": {R16: []unicode.Range16{{0x1b4e, 0x1b4f, 1}, {0x1b7f, 0x1b7f, 1}}, R32: []unicode.Range32{{0x113d4, 0x113d5, 1}, {0x113d7, 0x113d8, 1}, {0x11be1, 0x11be1, 1}, {0x16d6d, 0x16d6f, 1}, {0x1e5ff, 0x1e5ff, 1}}},
	"Sm": {R32: []unicode.Range32{{0x10d8e, 0x10d8f, 1}}},
	"So": {R16: []unicode.Range16{{0x2427, 0x2429, 1}, {0x2ffc, 0x2fff, 1}, {0x31e4, 0x31e5, 1}, {0x31ef, 0x31ef, 1}}, R32: []unicode.Range32{{0x1cc00, 0x1ccef, 1}, {0x1cd00, 0x1ceb3, 1}, {0x1f8b2, 0x1f8bb, 1}, {0x1f8c0, 0x1f8c1, 1}, {0x1fa89, 0x1fa89, 1}, {0x1fa8f, 0x1fa8f, 1}, {0x1fabe, 0x1fabe, 1}, {0x1fac6, 0x1fac6, 1}, {0x1fadc, 0x1fadc, 1}, {0x1fadf, 0x1fadf, 1}, {0x1fae9, 0x1fae9, 1}, {0x1fbcb, 0x1fbef, 1}}},
}

// newScripts are the characters that came between of the scripts that expressions may name. These are all that were
// compared with the reference.
var newScripts = map[string]*unicode.RangeTable{
	"Han":      {R32: []unicode.Range32{{0x2ebf0, 0x2ee5d, 1}}},
	"Cyrillic": {R16: []unicode.Range16{{0x1c89, 0x1c8a, 1}}},
	"Latin":    {R16: []unicode.Range16{{0xa7cb, 0xa7cd, 1}, {0xa7da, 0xa7dc, 1}}},
	"Arabic":   {R16: []unicode.Range16{{0x897, 0x897, 1}}, R32: []unicode.Range32{{0x10ec2, 0x10ec4, 1}, {0x10efc, 0x10efc, 1}}},
	"Hiragana": nil, "Katakana": nil, "Hangul": nil, "Greek": nil, "Hebrew": nil, "Thai": nil, "Devanagari": nil,
}

// inCategory returns a test for the characters of a general category such as "L" or "Lu", or of a script. It is nil for
// a name that is not known; "C" is not, since it has characters that do not exist, too.
func inCategory(name string) func(rune) bool {
	if extra, ok := newScripts[name]; ok {
		table := unicode.Scripts[name]
		return func(r rune) bool { return unicode.Is(table, r) || extra != nil && unicode.Is(extra, r) }
	}
	table := unicode.Categories[name]
	if table == nil || name == "C" || name == "Cn" {
		return nil
	}
	tables := []*unicode.RangeTable{table}
	for category, extra := range newCategories {
		if strings.HasPrefix(category, name) {
			tables = append(tables, extra)
		}
	}
	return func(r rune) bool { return unicode.In(r, tables...) }
}

// oldNumbers are characters of words for Oniguruma outside of classes, though they are neither letters nor digits.
var oldNumbers = &unicode.RangeTable{R16: []unicode.Range16{{0xb2, 0xb3, 1}, {0xb9, 0xb9, 1}, {0xbc, 0xbe, 1}}, LatinOffset: 3}

// isExpressionWord is \w of regular expressions in a tokenizer.json, outside of classes.
func isExpressionWord(r rune) bool { return isClassWord(r) || unicode.Is(oldNumbers, r) }

// isClassWord is \w in their classes.
func isClassWord(r rune) bool { return isWord(r) && !unicode.Is(unicode.Join_Control, r) }
