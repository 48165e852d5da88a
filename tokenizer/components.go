package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxDepth bounds how deep sequences may lie in sequences.
const maxDepth = 8

// absent reports whether a part of tokenizer.json is missing or null.
func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// readPart reads raw into dst and wraps the error with the part's path.
func readPart(raw json.RawMessage, path string, dst any) error {
	if err := json.Unmarshal(raw, dst); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// kindOf returns the type of a part.
func kindOf(raw json.RawMessage, path string) (string, error) {
	var part struct {
		Type string `json:"type"`
	}
	err := readPart(raw, path, &part)
	return part.Type, err
}

// sequence reads the parts of a Sequence, held under key, with read.
func sequence[T any](raw json.RawMessage, path, key string, depth int, read func(json.RawMessage, string, int) (T, error)) ([]T, error) {
	if depth >= maxDepth {
		return nil, fmt.Errorf("%s: sequences lie more than %d deep in each other", path, maxDepth)
	}
	var fields map[string]json.RawMessage
	if err := readPart(raw, path, &fields); err != nil {
		return nil, err
	}
	if absent(fields[key]) {
		return nil, fmt.Errorf("%s: no %s", path, key)
	}
	var parts []json.RawMessage
	if err := readPart(fields[key], path+"."+key, &parts); err != nil {
		return nil, err
	}
	list := make([]T, 0, len(parts))
	var errs problems
	for i, p := range parts {
		part, err := read(p, fmt.Sprintf("%s.%s[%d]", path, key, i), depth+1)
		errs.add(err)
		list = append(list, part)
	}
	return list, errs.err()
}

// readNormalizer builds the normalizer of tokenizer.json.
func readNormalizer(raw json.RawMessage, path string, depth int) (normalizer, error) {
	kind, err := kindOf(raw, path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		list, err := sequence(raw, path, "normalizers", depth, readNormalizer)
		return normalizers(list), err
	case "Prepend":
		var p struct {
			Prepend string `json:"prepend"`
		}
		err := readPart(raw, path, &p)
		return prepend(p.Prepend), err
	case "Replace":
		return readReplace(raw, path)
	case "NFC":
		return unicodeForm(norm.NFC), nil
	case "NFD":
		return unicodeForm(norm.NFD), nil
	case "NFKC":
		return unicodeForm(norm.NFKC), nil
	case "NFKD":
		return unicodeForm(norm.NFKD), nil
	}
	return nil, fmt.Errorf("%s: normalizer type %.40q is %w: "+
		"Sequence, Prepend, Replace, NFC, NFD, NFKC and NFKD are", path, kind, ErrUnsupported)
}

func readReplace(raw json.RawMessage, path string) (replace, error) {
	var p struct {
		Pattern patternFile `json:"pattern"`
		Content string      `json:"content"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return replace{}, err
	}
	pattern, err := p.Pattern.read(path)
	return replace{pattern, p.Content}, err
}

// patternFile is a pattern as written: {"String": ...} or {"Regex": ...}.
type patternFile struct {
	String *string
	Regex  *string
}

func (p patternFile) read(path string) (pattern, error) {
	switch {
	case p.String != nil && *p.String != "":
		return literal(*p.String), nil
	case p.Regex != nil:
		re, err := newPattern(*p.Regex)
		if err != nil {
			return nil, fmt.Errorf("%s.pattern: %w", path, err)
		}
		return re, nil
	}
	return nil, fmt.Errorf("%s.pattern: want a String that is not empty or a Regex", path)
}

// readPreTokenizer builds the pre_tokenizer of tokenizer.json.
func readPreTokenizer(raw json.RawMessage, path string, depth int) (preTokenizer, error) {
	kind, err := kindOf(raw, path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		list, err := sequence(raw, path, "pretokenizers", depth, readPreTokenizer)
		return preTokenizers(list), err
	case "ByteLevel":
		p := struct {
			AddPrefixSpace bool `json:"add_prefix_space"`
			UseRegex       bool `json:"use_regex"`
		}{AddPrefixSpace: true, UseRegex: true}
		err := readPart(raw, path, &p)
		return byteLevel{p.AddPrefixSpace, p.UseRegex}, err
	case "Metaspace":
		return readMetaspace(raw, path)
	case "Split":
		return readSplit(raw, path)
	case "Digits":
		var p struct {
			IndividualDigits bool `json:"individual_digits"`
		}
		err := readPart(raw, path, &p)
		s := split{pattern: oneRune(isNumber), keep: contiguous}
		if p.IndividualDigits {
			s.keep = isolated
		}
		return s, err
	case "Punctuation":
		p := struct {
			Behavior behavior `json:"behavior"`
		}{isolated}
		err := readPart(raw, path, &p)
		return split{pattern: oneRune(isPunctuation), keep: p.Behavior}, err
	case "WhitespaceSplit":
		return split{pattern: oneRune(unicode.IsSpace), keep: removed}, nil
	}
	return nil, fmt.Errorf("%s: pre_tokenizer type %.40q is %w: "+
		"Sequence, ByteLevel, Metaspace, Split, Digits, Punctuation and WhitespaceSplit are", path, kind, ErrUnsupported)
}

func readSplit(raw json.RawMessage, path string) (split, error) {
	var p struct {
		Pattern  patternFile `json:"pattern"`
		Behavior *behavior   `json:"behavior"`
		Invert   bool        `json:"invert"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return split{}, err
	}
	if p.Behavior == nil {
		return split{}, fmt.Errorf("%s: no behavior", path)
	}
	pattern, err := p.Pattern.read(path)
	return split{pattern, *p.Behavior, p.Invert}, err
}

// UnmarshalJSON reads a behavior by its name.
func (b *behavior) UnmarshalJSON(data []byte) error {
	var name string
	if err := json.Unmarshal(data, &name); err != nil {
		return err
	}
	switch name {
	case "Isolated":
		*b = isolated
	case "Removed":
		*b = removed
	case "MergedWithPrevious":
		*b = withPrevious
	case "MergedWithNext":
		*b = withNext
	case "Contiguous":
		*b = contiguous
	default:
		return fmt.Errorf("behavior %.40q is not known", name)
	}
	return nil
}

// readMetaspace reads a Metaspace part, which is a pre-tokenizer and a decoder.
func readMetaspace(raw json.RawMessage, path string) (spaceMark, error) {
	var p struct {
		Replacement    string  `json:"replacement"`
		AddPrefixSpace *bool   `json:"add_prefix_space"`
		PrependScheme  *string `json:"prepend_scheme"`
		Split          *bool   `json:"split"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return spaceMark{}, err
	}
	m := spaceMark{mark: p.Replacement, cut: p.Split == nil || *p.Split}
	var errs []error
	if utf8.RuneCountInString(p.Replacement) != 1 {
		errs = append(errs, fmt.Errorf("%s: replacement: want one character, got %.40q", path, p.Replacement))
	}
	scheme := "always"
	if p.PrependScheme != nil {
		scheme = *p.PrependScheme
	} else if p.AddPrefixSpace != nil && !*p.AddPrefixSpace {
		scheme = "never"
	}
	switch scheme {
	case "always":
		m.prefix = prefixAlways
	case "first":
		m.prefix = prefixFirst
	case "never":
		m.prefix = prefixNever
	default:
		errs = append(errs, fmt.Errorf("%s: prepend_scheme %.40q is not known: always, first and never are", path, scheme))
	}
	if p.AddPrefixSpace != nil && !*p.AddPrefixSpace && scheme != "never" {
		errs = append(errs, fmt.Errorf("%s: add_prefix_space false contradicts prepend_scheme %.40q", path, scheme))
	}
	return m, errors.Join(errs...)
}

// readDecoders builds the decoder of tokenizer.json, a Sequence flattened.
func readDecoders(raw json.RawMessage, path string, depth int) ([]decoderSpec, error) {
	kind, err := kindOf(raw, path)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		lists, err := sequence(raw, path, "decoders", depth, readDecoders)
		var flat []decoderSpec
		for _, l := range lists {
			flat = append(flat, l...)
		}
		return flat, err
	case "Replace":
		rule, err := readReplace(raw, path)
		lit, ok := rule.pattern.(literal)
		return []decoderSpec{{
			start: func(n decodeStep) decodeStep { return &replaced{next: n, rule: rule} },
			whole: !ok || utf8.RuneCountInString(string(lit)) > 1, growth: rule.growth(),
		}}, err
	case "ByteFallback":
		return []decoderSpec{{
			start: func(n decodeStep) decodeStep { return &byteFallback{next: n} },
			whole: true,
		}}, nil
	case "Fuse":
		return []decoderSpec{{
			start: func(n decodeStep) decodeStep { return &fused{next: n} },
			parts: true,
		}}, nil
	case "ByteLevel":
		return []decoderSpec{{
			start: func(n decodeStep) decodeStep { return &byteLevelText{next: n} },
			parts: true, whole: true,
		}}, nil
	case "Strip":
		return readStrip(raw, path)
	case "Metaspace":
		m, err := readMetaspace(raw, path)
		return []decoderSpec{{
			start: func(n decodeStep) decodeStep {
				return &spaceMarkText{next: n, mark: m.mark, prefix: m.prefix != prefixNever}
			},
		}}, err
	}
	return nil, fmt.Errorf("%s: decoder type %.40q is %w: "+
		"Sequence, Replace, ByteFallback, Fuse, ByteLevel, Strip and Metaspace are", path, kind, ErrUnsupported)
}

func readStrip(raw json.RawMessage, path string) ([]decoderSpec, error) {
	var p struct {
		Content string `json:"content"`
		Start   uint32 `json:"start"`
		Stop    uint32 `json:"stop"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return nil, err
	}
	content, n := utf8.DecodeRuneInString(p.Content)
	if n == 0 || n != len(p.Content) {
		return nil, fmt.Errorf("%s: content: want one character, got %.40q", path, p.Content)
	}
	return []decoderSpec{{
		start: func(n decodeStep) decodeStep {
			return &strip{next: n, content: content, start: int(p.Start), stop: int(p.Stop)}
		},
		parts: true,
	}}, nil
}
