package tokenizer

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	sugar "github.com/sugarme/tokenizer"
)

// TestSplitBehaviors has the reference's pieces of "--a-b--".
func TestSplitBehaviors(t *testing.T) {
	for keep, want := range map[behavior][]string{
		removed:      {"a", "b"},
		isolated:     {"-", "-", "a", "-", "b", "-", "-"},
		withPrevious: {"-", "-", "a-", "b-", "-"},
		withNext:     {"-", "-a", "-b", "-", "-"},
		contiguous:   {"--", "a", "-", "b", "--"},
	} {
		if got := (split{pattern: literal("-"), keep: keep}).split([]string{"--a-b--"}, atStart); !slices.Equal(got, want) {
			t.Errorf("behavior %d: %q, want %q", keep, got, want)
		}
	}
}

func TestPreTokenizers(t *testing.T) {
	for _, c := range []struct {
		part, text string
		at         place
		want       []string
	}{
		{`{"type":"WhitespaceSplit"}`, " a  b\u3000c ", atStart, []string{"a", "b", "c"}},
		{`{"type":"Digits"}`, "a12b٣", atStart, []string{"a", "12", "b", "٣"}},
		{`{"type":"Digits","individual_digits":true}`, "a12", atStart, []string{"a", "1", "2"}},
		{`{"type":"Punctuation"}`, "a,+。b", atStart, []string{"a", ",", "+", "。", "b"}},
		{`{"type":"Metaspace","replacement":"▁","add_prefix_space":true}`, "a b", atStart, []string{"▁a", "▁b"}},
		{`{"type":"Metaspace","replacement":"▁","add_prefix_space":true}`, "a b", afterToken, []string{"▁a", "▁b"}},
		{`{"type":"Metaspace","replacement":"▁","add_prefix_space":true}`, "a b", afterText, []string{"a", "▁b"}},
		{`{"type":"Metaspace","replacement":"▁","add_prefix_space":false}`, "a b", atStart, []string{"a", "▁b"}},
		{`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"}`, " a b", atStart, []string{"▁a", "▁b"}},
		{`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false}`, "a b", atStart, []string{"▁a▁b"}},
		{`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"}`, "a b", afterToken, []string{"a", "▁b"}},
		{`{"type":"ByteLevel","add_prefix_space":false}`, "a é\n", atStart, []string{"a", "ĠÃ©", "Ċ"}},
		{`{"type":"ByteLevel"}`, "a b", atStart, []string{"Ġa", "Ġb"}},
		{`{"type":"ByteLevel","use_regex":false}`, "a b", afterText, []string{"aĠb"}},
		{`{"type":"Sequence","pretokenizers":[]}`, "a b", atStart, []string{"a b"}},
	} {
		p, err := readPreTokenizer(json.RawMessage(c.part), "p", 0)
		if err != nil {
			t.Errorf("%s: %v", c.part, err)
			continue
		}
		if got := p.split([]string{c.text}, c.at); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q at %d: %q, want %q", c.part, c.text, c.at, got, c.want)
		}
	}
}

func TestDecoders(t *testing.T) {
	strip := func(content string, start, stop string) string {
		return `{"type":"Strip","content":"` + content + `","start":` + start + `,"stop":` + stop + `}`
	}
	seq := func(parts ...string) string {
		return `{"type":"Sequence","decoders":[` + strings.Join(parts, ",") + `]}`
	}
	replace := func(from, to string) string {
		return `{"type":"Replace","pattern":{"String":"` + from + `"},"content":"` + to + `"}`
	}
	const fuse, bytes = `{"type":"Fuse"}`, `{"type":"ByteFallback"}`
	for _, c := range []struct {
		decoder string
		tokens  []string
		want    string
	}{
		{bytes, []string{"<0xE2>", "<0x82>", "<0xAC>", "a"}, "€a"},
		{bytes, []string{"<0xE2>", "<0x82>", "a", "<0x41>"}, "\uFFFD\uFFFDaA"},
		{bytes, []string{"<0x41>", "<0xFF>"}, "\uFFFD\uFFFD"},
		{bytes, []string{"<0xZZ>", "<0x4>"}, "<0xZZ><0x4>"},
		{strip("_", "1", "0"), []string{"__a", "_", "b_"}, "_ab_"},
		{strip("_", "0", "2"), []string{"a___", "b", "__"}, "a_b"},
		{strip("_", "1", "1"), []string{"__", "_a_b_"}, "a_b"},
		{seq(fuse, strip("_", "1", "1")), []string{"_", "_a_", "_", "b__", "_"}, "_a__b__"},
		{seq(fuse, strip("_", "9", "9")), []string{"_", "__", "a_", "_b", "__"}, "a__b"},
		{seq(fuse, replace("ab", "X")), []string{"a", "b", "ba", "b"}, "XbX"},
		{seq(replace("ab", "X"), fuse), []string{"a", "b", "ab"}, "abX"},
		{seq(strip("_", "0", "1"), replace("a_", "X")), []string{"a__", "a_", "b"}, "Xab"},
		{seq(fuse, bytes), []string{"<0x", "41>"}, "A"},
		{`{"type":"ByteLevel"}`, []string{"Ġa", "Ã", "©", "日"}, " aé日"},
		{`{"type":"ByteLevel"}`, []string{"ð", "Ł", "ĳ", "a"}, "\uFFFDa"},
		{`{"type":"ByteLevel"}`, []string{"í", "ł", "Ģ"}, "\uFFFD\uFFFD\uFFFD"},
		{`{"type":"Metaspace","replacement":"▁"}`, []string{"▁▁a▁", "▁b"}, "a b"},
		{`{"type":"Metaspace","replacement":"▁","prepend_scheme":"never"}`, []string{"▁a", "▁b"}, " a b"},
		{seq(`{"type":"Replace","pattern":{"Regex":"[ab]+"},"content":"-"}`), []string{"aab", "cab"}, "-c-"},
	} {
		specs, err := readDecoders(json.RawMessage(c.decoder), "decoder", 0)
		if err != nil {
			t.Errorf("%s: %v", c.decoder, err)
			continue
		}
		ids := make(map[string]int32)
		var list []int32
		var pieces []string
		for _, s := range c.tokens {
			if _, ok := ids[s]; !ok {
				ids[s] = int32(len(pieces))
				pieces = append(pieces, s)
			}
			list = append(list, ids[s])
		}
		tok := &Tokenizer{
			model: newBPE(bpeConfig{ids: ids, pieces: pieces}), added: newAddedVocabulary(nil, nil), decoders: inPieces(specs),
		}
		if got := tok.Decode(list); got != c.want {
			t.Errorf("%s: Decode(%q) = %q, want %q", c.decoder, c.tokens, got, c.want)
		}
		if got := streamed(tok.Stream(), list); got != c.want {
			t.Errorf("%s: Stream(%q) = %q, want %q", c.decoder, c.tokens, got, c.want)
		}
	}
}

// TestStreamHoldsBack checks what a stream gives as it goes.
func TestStreamHoldsBack(t *testing.T) {
	tok := loadSmall(t, "llama3")
	s := tok.Stream()
	ids := tok.Encode("a €b")
	var got []string
	for _, id := range ids {
		got = append(got, s.Next(id))
	}
	if text := strings.Join(got, "") + s.Flush(); text != "a €b" || !slices.Contains(got, "") {
		t.Errorf("pieces %q", got)
	}
	for _, g := range got {
		if !utf8.ValidString(g) {
			t.Errorf("%q is not UTF-8", g)
		}
	}
	euro := tok.Encode("€")
	if text := s.Next(euro[0]); text != "" {
		t.Errorf("the first byte of three gave %q", text)
	}
	if text := s.Flush(); text != "\uFFFD" {
		t.Errorf("Flush gave %q", text)
	}
	if text := streamed(s, euro); text != "€" {
		t.Errorf("after Flush the stream gave %q", text)
	}
}

func TestReadUTF8(t *testing.T) {
	for _, c := range []struct{ in, want, rest string }{
		{"a\xc3", "a", "\xc3"},
		{"\xc3a", "\uFFFDa", ""},
		{"\xe2\x82", "", "\xe2\x82"},
		{"\xe2\x82\xe2\x82\xac", "\uFFFD€", ""},
		{"\xf0\x9f\x99", "", "\xf0\x9f\x99"},
		{"\xf0\x80\x80", "\uFFFD\uFFFD\uFFFD", ""},
		{"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD", ""},
		{"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD", ""},
		{"\xf4\x8f\xbf", "", "\xf4\x8f\xbf"},
		{"\xff\x80", "\uFFFD\uFFFD", ""},
		{"\uFFFD\xe0", "\uFFFD", "\xe0"},
		{"\xc0\xaf", "\uFFFD\uFFFD", ""},
	} {
		got, rest := readUTF8([]byte(c.in), false)
		if got != c.want || string(rest) != c.rest {
			t.Errorf("%q: %q and %q, want %q and %q", c.in, got, rest, c.want, c.rest)
		}
		all, _ := readUTF8([]byte(c.in), true)
		want := c.want
		if c.rest != "" {
			want += "\uFFFD"
		}
		if all != want {
			t.Errorf("all of %q: %q, want %q", c.in, all, want)
		}
	}
}

// TestScannersAsExpressions compares the scanners with the same patterns as expressions.
func TestScannersAsExpressions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabet := []rune("ab Ss'tlLvVeErRmMdD12٣½\n\r\t  ..,!-_\u00a0\u3000ſé好🙂\u0301\u200d\u0085")
	for _, source := range []string{patternGPT2, patternLlama3, patternQwen2} {
		e, err := newExpression(source)
		if err != nil {
			t.Fatal(err)
		}
		scan := split{pattern: known(source)}
		expr := split{pattern: e}
		for range 3000 {
			text := make([]rune, 1+rng.IntN(20))
			for i := range text {
				text[i] = alphabet[rng.IntN(len(alphabet))]
			}
			in := []string{string(text)}
			if got, want := scan.split(in, atStart), expr.split(in, atStart); !slices.Equal(got, want) {
				t.Fatalf("%q\n got %q\nwant %q", in[0], got, want)
			}
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          []string
	}{
		{`\s`, "a\u00a0b\u2028c", []string{"\u00a0", "\u2028"}},
		{`\S+`, "a\u00a0b c", []string{"a", "b", "c"}},
		{`[^\S\n]+`, "a \u3000\n b", []string{" \u3000", " "}},
		{`[\s,]+`, "a, b", []string{", "}},
		{`\d\D`, "1a٣b", []string{"1a", "٣b"}},
		{`(a|b)c`, "acbc", []string{"ac", "bc"}},
		{`(?i:ab)`, "abAB", []string{"ab", "AB"}},
		{`[\u4e00-\u9fa5]+`, "a好b", []string{"好"}},
		{`\p{Lu}\p{Ll}*`, "AbC", []string{"Ab", "C"}},
		{`\[\]\-\/`, "[]-/", []string{"[]-/"}},
		{`x|\s+(?!\S)|\s+`, "a   b x", []string{"  ", " ", " ", "x"}},
		{`x|\s+(?!\S)|\s+`, "a  ", []string{"  "}},
	} {
		p, err := newPattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		got := (split{pattern: p, keep: removed, invert: true}).split([]string{c.text}, atStart)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s in %q: %q, want %q", c.pattern, c.text, got, c.want)
		}
	}
	deep := strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100)
	for _, c := range []struct{ pattern, want string }{
		{`a*`, "it can match nothing at all; such a pattern cannot cut text"}, {``, "nothing at all"}, {`a||b`, "nothing at all"},
		{`(?=a)`, "nothing at all"}, {`\b`, "nothing at all"}, {`^`, "nothing at all"}, {`(?:a?|b)c*`, "nothing at all"},
		{`(`, "a missing ) at byte 1"}, {`a)`, "an unmatched ) at byte 1"}, {`[`, "a missing ] at byte 1"}, {`[a`, "a missing ] at byte 2"},
		{`[a[b]]`, "a class within a class is not supported at byte 2"}, {`[a&&b]`, "an intersection of classes is not"},
		{`[]a]`, "an empty class is not"}, {`[\S-x]`, "a range without an end"}, {`[b-a]`, "a range without an end, or in the wrong order"}, {`[a-\d]`, "a range without an end"},
		{`(?:ab)++`, "the possessive quant"}, {`a{1,2}+`, "the possessive quant"}, {`a**`, "the repeated quantif"}, {`a+{2}`, "the repeated quantif"},
		{`\b+a`, "a repeated condition is not supported"}, {`(?=ab)a`, "looking around for more than one character is not supported"},
		{`(?>a)`, "the group (?>a is not supported at byte 0"}, {`(?<n>a)`, "the group (?<n is not"}, {`(?i)a`, "the group (?i) is not"},
		{`(?#x)a`, "the group (?#x is not"}, {`\h`, `the escape \h is not`}, {`\u12`, `the escape \u12 is not`}, {`\xff`, `the escape \xff is not`},
		{`\x{d800}`, `the escape \x{d800} is not`}, {`\`, `a trailing \`}, {`a\`, `a trailing \ at byte 1`}, {`\p{Nope}`, "the property Nope is not"},
		{`\p{C}`, "the property C is not"}, {`\pL`, `the escape \p without br`}, {`\1a`, `the escape \1 is not`}, {`\R`, `the escape \R is not`},
		{`a{}`, "{ is not"}, {`a{2,1}`, "want counts from 1 to 512 in their order"}, {`a{0}`, "want counts"}, {`a{1000}`, "want counts"},
		{`a{99999999999}`, "is not supported"}, {`{`, "{ in this place is not"}, {`+a`, "+ in this place is not"}, {`a{3}?`, "{3}? is not"},
		{`(?:a{100}){100}`, "it has more than 512 steps"}, {deep, "groups lie more than 64 deep in each other"},
		{"\xff", "not UTF-8"}, {"[\xff]", "not UTF-8"},
	} {
		if p, err := newPattern(c.pattern); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %v, error %v, want one with %q", c.pattern, p, err, c.want)
		}
	}
}

// TestExpressionsAsReference compares with how Hugging Face's tokenizers cut text. The file is made by
// testdata/reference/make_regex_cases.py.
func TestExpressionsAsReference(t *testing.T) {
	rows := lines(t, data(t, "regex.jsonl"))
	if len(rows) < 50 {
		t.Errorf("only %d expressions", len(rows))
	}
	for _, row := range rows {
		var c struct {
			Pattern string
			Cases   [][]string
		}
		if err := json.Unmarshal(row, &c); err != nil {
			t.Fatal(err)
		}
		e, err := newExpression(c.Pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range c.Cases {
			text := strings.Join(want, "")
			if got := (split{pattern: e}).split([]string{text}, atStart); !slices.Equal(got, want) {
				t.Errorf("%s\n got %q\nwant %q", c.Pattern, got, want)
				break
			}
		}
	}
}

// TestExpressionsThatExplode matches expressions that take an exponential time, or one that grows with the square of the
// text, where they are tried without a memory.
func TestExpressionsThatExplode(t *testing.T) {
	as := strings.Repeat("a", 100_000)
	for _, source := range []string{
		`(a+)+b|a`, `(?:a|a)*b|a`, `(?:a*)*b|a`, `a*b|a`, `a*a*a*a*a*a*a*a*b|a`, `(?:a?){50}a{50}b|a`, `a++b|a`, `(?:aa|aaa)*b|a`, `.*.*=.*|a`,
		`(?:a+?)+?b|a`, `(?i:(?:a|A)+)+b|a`, `(?:a{1,10}){1,10}b|a`, `a*+b|a`, `(?:\w|a)*(?!a)x|a`,
	} {
		e, err := newExpression(source)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := len((split{pattern: e}).split([]string{as}, atStart)); got != len(as) {
			t.Errorf("%s: %d pieces, want %d", source, got, len(as))
		}
	}
}

// TestWhiteSpaceRanges checks the two range texts against Unicode's white space.
func TestWhiteSpaceRanges(t *testing.T) {
	is, err := newPattern(`[\s]`)
	if err != nil {
		t.Fatal(err)
	}
	not, err := newPattern(`[\S]`)
	if err != nil {
		t.Fatal(err)
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || r > 0x3100 && r%101 != 0 && r != unicode.MaxRune {
			continue
		}
		s := string(r)
		if start, _ := is.in(s)(0); (start == 0) != unicode.IsSpace(r) {
			t.Fatalf("\\s on %U: %v", r, start)
		}
		if start, _ := not.in(s)(0); (start == 0) == unicode.IsSpace(r) {
			t.Fatalf("\\S on %U: %v", r, start)
		}
	}
}

// naive is BPE by its definition: merge the leftmost pair of lowest rank until none is left.
func naive(m *bpe, word string) []int32 {
	if id, ok := m.ids[word]; ok && m.whole {
		return []int32{id}
	}
	var w work
	m.start(word, &w)
	ids := make([]int32, 0, len(w.symbols))
	for _, s := range w.symbols {
		ids = append(ids, s.id)
	}
	for {
		best, at := merge{rank: 1 << 30}, -1
		for i := 0; i+1 < len(ids); i++ {
			if g, ok := m.merges.get(pair{ids[i], ids[i+1]}); ok && g.rank < best.rank {
				best, at = g, i
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

func TestMergesAsNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, name := range small {
		m := loadSmall(t, name).model
		if wantBorder := name == "sp" || name == "metaspace" || name == "words"; m.border != wantBorder {
			t.Errorf("%s: border %v", name, m.border)
		}
		var short []string
		for s := range m.ids {
			short = append(short, s)
		}
		slices.Sort(short)
		for range 500 {
			var b strings.Builder
			for range 1 + rng.IntN(12) {
				b.WriteString(short[rng.IntN(len(short))])
				if rng.IntN(4) == 0 {
					b.WriteString([]string{"▁", "好", "\x00", "a"}[rng.IntN(4)])
				}
			}
			if got, want := m.append(nil, b.String()), naive(m, b.String()); !slices.Equal(got, want) {
				t.Fatalf("%s: %q\n got %v\nwant %v", name, b.String(), got, want)
			}
		}
	}
}

// TestModelInSugarme runs the model in sugarme/tokenizer's own pipeline.
func TestModelInSugarme(t *testing.T) {
	tok := loadSmall(t, "sp")
	var model sugar.Model = tok.Model()
	other := sugar.NewTokenizer(model)
	for _, text := range []string{"patient", "▁The▁patient", "Größe", "🙂"} {
		enc, err := other.EncodeSingle(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []int32
		for _, id := range enc.GetIds() {
			got = append(got, int32(id))
		}
		if want := tok.model.append(nil, text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	tokens, err := model.Tokenize("▁The好")
	if err != nil {
		t.Fatal(err)
	}
	end := 0
	for _, k := range tokens {
		if k.Offsets[0] != end {
			t.Errorf("token %v does not begin at %d", k, end)
		}
		end = k.Offsets[1]
		if id, ok := model.TokenToId(k.Value); !ok || id != k.Id {
			t.Errorf("TokenToId(%q) = %d, %v", k.Value, id, ok)
		}
		if s, ok := model.IdToToken(k.Id); !ok || s != k.Value {
			t.Errorf("IdToToken(%d) = %q, %v", k.Id, s, ok)
		}
	}
	if end != len("▁The好") {
		t.Errorf("tokens end at %d", end)
	}
	if n := model.GetVocabSize(); n != len(model.GetVocab()) || n == 0 {
		t.Errorf("vocabulary of %d", n)
	}
	if err := model.Save(t.TempDir()); err == nil {
		t.Error("Save did not fail")
	}
}

func TestNormalizers(t *testing.T) {
	const (
		prefix  = `{"type":"Prepend","prepend":"▁"}`
		spaces  = `{"type":"Replace","pattern":{"String":" "},"content":"▁"}`
		pattern = `{"type":"Replace","pattern":{"Regex":" {2,}"},"content":"_"}`
	)
	for _, c := range []struct {
		part, text string
		at         place
		want       string
	}{
		{prefix, "a", atStart, "▁a"},
		{prefix, "a", afterToken, "▁a"},
		{prefix, "a", afterText, "a"},
		{prefix, "", atStart, ""},
		{`{"type":"Sequence","normalizers":[` + prefix + `,` + spaces + `]}`, " a b", atStart, "▁▁a▁b"},
		{pattern, "a  b c   ", atStart, "a_b c_"},
		{`{"type":"NFC"}`, "e\u0301ﬁ", atStart, "éﬁ"},
		{`{"type":"NFD"}`, "éﬁ", atStart, "e\u0301ﬁ"},
		{`{"type":"NFKC"}`, "e\u0301ﬁ", atStart, "éfi"},
		{`{"type":"NFKD"}`, "éﬁ", atStart, "e\u0301fi"},
	} {
		n, err := readNormalizer(json.RawMessage(c.part), "n", 0)
		if err != nil {
			t.Errorf("%s: %v", c.part, err)
			continue
		}
		if got := n.normalize(c.text, c.at); got != c.want {
			t.Errorf("%s: %q at %d: %q, want %q", c.part, c.text, c.at, got, c.want)
		}
	}
}
