package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The patterns of the field as tokenizer.json writes them. They are matched by the scanners below.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// known returns the scanner for a pattern, nil for a pattern that has none.
func known(pattern string) scanner {
	switch pattern {
	case patternGPT2:
		return scanGPT2
	case patternLlama3:
		return scanLlama3
	case patternQwen2:
		return scanQwen2
	}
	return nil
}

// class is what the patterns tell apart.
type class uint8

const (
	other class = iota
	letter
	number
	space
)

var asciiClass = func() (t [utf8.RuneSelf]class) {
	for r := range t {
		t[r] = classify(rune(r))
	}
	return t
}()

func classify(r rune) class {
	switch {
	case unicode.IsLetter(r) || unicode.Is(newLetters, r):
		return letter
	case unicode.IsNumber(r) || unicode.Is(newNumbers, r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// head returns the class and the length of the first character of s, length 0 at its end.
func head(s string) (class, int) {
	if s == "" {
		return other, 0
	}
	if s[0] < utf8.RuneSelf {
		return asciiClass[s[0]], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	return classify(r), n
}

// run returns the length of the characters of class c that s begins with, at most limit of them.
func run(s string, c class, limit int) int {
	at := 0
	for ; limit > 0; limit-- {
		k, n := head(s[at:])
		if n == 0 || k != c {
			break
		}
		at += n
	}
	return at
}

const anyNumber = int(^uint(0) >> 1)

// scanGPT2 returns the length of the match of patternGPT2 at the start of s.
func scanGPT2(s string) int {
	if n := contraction(s, false); n > 0 {
		return n
	}
	at := 0
	if s[0] == ' ' {
		at = 1
	}
	if c, n := head(s[at:]); n > 0 && c != space {
		return at + run(s[at:], c, anyNumber)
	}
	return spaces(s)
}

func scanLlama3(s string) int { return scanCased(s, 3) }

func scanQwen2(s string) int { return scanCased(s, 1) }

// scanCased returns the length of the match of patternLlama3 at the start of s, with digits in groups of limit.
func scanCased(s string, limit int) int {
	if n := contraction(s, true); n > 0 {
		return n
	}
	c, n := head(s)
	switch {
	case c == letter:
		return run(s, letter, anyNumber)
	case c == number:
		return run(s, number, limit)
	case s[0] != '\r' && s[0] != '\n':
		if k := run(s[n:], letter, anyNumber); k > 0 {
			return n + k
		}
	}
	at := 0
	if s[0] == ' ' {
		at = 1
	}
	if k := run(s[at:], other, anyNumber); k > 0 {
		at += k
		for at < len(s) && (s[at] == '\r' || s[at] == '\n') {
			at++
		}
		return at
	}
	end := run(s, space, anyNumber)
	if i := strings.LastIndexAny(s[:end], "\r\n"); i >= 0 {
		return i + 1
	}
	return spaces(s)
}

// spaces matches \s+(?!\S)|\s+: the white space that s begins with, without its last character if text follows and
// something is left.
func spaces(s string) int {
	end := run(s, space, anyNumber)
	if end == len(s) {
		return end
	}
	if _, n := utf8.DecodeLastRuneInString(s[:end]); n < end {
		return end - n
	}
	return end
}

// contraction matches 's, 't, 're, 've, 'm, 'll and 'd. With fold case does not count, and U+017F is an s.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	a, b := s[1], byte(0)
	if len(s) > 2 {
		b = s[2]
	}
	if fold {
		if strings.HasPrefix(s[1:], "ſ") {
			return 1 + len("ſ")
		}
		a, b = lower(a), lower(b)
	}
	switch a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if b == 'e' {
			return 3
		}
	case 'l':
		if b == 'l' {
			return 3
		}
	}
	return 0
}

func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// isWord is \w of the reference's regular expressions.
func isWord(r rune) bool {
	return classify(r) == letter || r == '_' ||
		unicode.In(r, unicode.Nd, unicode.Nl, unicode.M, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control,
			newNumbers, newCategories["Mn"], newCategories["Mc"])
}

func isNumber(r rune) bool { return classify(r) == number }
