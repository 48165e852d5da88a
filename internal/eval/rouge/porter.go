package rouge

import "bytes"

// irregular are the forms that NLTK's stemmer looks up.
var irregular = map[string]string{
	"sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news",
	"inning": "inning", "innings": "inning", "outing": "outing", "outings": "outing",
	"canning": "canning", "cannings": "canning", "howe": "howe",
	"proceed": "proceed", "exceed": "exceed", "succeed": "succeed",
}

// porter stems a word of a-z and 0-9, in its own memory: Porter, "An algorithm for suffix stripping" (1980), with the
// changes of NLTK's PorterStemmer in its default mode, which are marked. Digits count as consonants.
func porter(w []byte) []byte {
	if to, ok := irregular[string(w)]; ok { // NLTK
		return append(w[:0], to...)
	}
	if len(w) <= 2 {
		return w
	}
	w = plural(w)
	w = pastAndGerund(w)
	if n := len(w); n > 2 && w[n-1] == 'y' && consonant(w, n-2) { // step 1c in NLTK's form
		w[n-1] = 'i'
	}
	w = doubleSuffix(w)
	w, _ = applyFirst(w, step3, 0)
	w = bareSuffix(w)
	w = finalE(w)
	if n := len(w); ends(w, "ll") && measure(w[:n-1]) > 1 { // step 5b
		w = w[:n-1]
	}
	return w
}

// consonant reports whether letter i is one: not a vowel, and y only where it does not follow a consonant.
func consonant(w []byte, i int) bool {
	flip := false
	for ; i > 0 && w[i] == 'y'; i-- {
		flip = !flip
	}
	return vowel(w[i]) == flip
}

func vowel(c byte) bool {
	return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'
}

// measure is Porter's m: the number of times that a consonant follows a vowel.
func measure(w []byte) (m int) {
	before := true
	for i, c := range w {
		is := !vowel(c)
		if c == 'y' {
			is = i == 0 || !before
		}
		if is && !before {
			m++
		}
		before = is
	}
	return m
}

func hasVowel(w []byte) bool {
	before := false
	for i, c := range w {
		is := !vowel(c)
		if c == 'y' {
			is = i == 0 || !before
		}
		if !is {
			return true
		}
		before = is
	}
	return false
}

// endsCVC is Porter's *o: consonant, vowel, consonant at the end, the last none of w, x, y. NLTK takes words of a
// vowel and a consonant for such too.
func endsCVC(w []byte) bool {
	n := len(w)
	if n == 2 {
		return !consonant(w, 0) && consonant(w, 1)
	}
	if n < 3 || w[n-1] == 'w' || w[n-1] == 'x' || w[n-1] == 'y' {
		return false
	}
	return consonant(w, n-3) && !consonant(w, n-2) && consonant(w, n-1)
}

func ends(w []byte, suffix string) bool {
	return len(w) >= len(suffix) && string(w[len(w)-len(suffix):]) == suffix
}

// rule replaces a suffix.
type rule struct{ suffix, with string }

// applyFirst finds the first rule whose suffix the word has, and replaces it if what is left has a measure above m.
func applyFirst(w []byte, rules []rule, m int) ([]byte, bool) {
	for _, r := range rules {
		if !ends(w, r.suffix) {
			continue
		}
		if stem := w[:len(w)-len(r.suffix)]; measure(stem) > m {
			return append(stem, r.with...), true
		}
		return w, false
	}
	return w, false
}

// plural is step 1a.
func plural(w []byte) []byte {
	n := len(w)
	switch {
	case ends(w, "ies") && n == 4: // NLTK
		return w[:n-1]
	case ends(w, "sses"), ends(w, "ies"):
		return w[:n-2]
	case ends(w, "s") && !ends(w, "ss"):
		return w[:n-1]
	}
	return w
}

// pastAndGerund is step 1b.
func pastAndGerund(w []byte) []byte {
	n := len(w)
	switch {
	case ends(w, "ied"): // NLTK
		if n == 4 {
			return w[:n-1]
		}
		return w[:n-2]
	case ends(w, "eed"):
		if measure(w[:n-3]) > 0 {
			return w[:n-1]
		}
		return w
	case ends(w, "ed") && hasVowel(w[:n-2]):
		return mend(w[:n-2])
	case ends(w, "ing") && hasVowel(w[:n-3]):
		return mend(w[:n-3])
	}
	return w
}

// mend gives a stem that has lost -ed or -ing its e back, or takes one of two equal letters.
func mend(w []byte) []byte {
	n := len(w)
	switch {
	case ends(w, "at"), ends(w, "bl"), ends(w, "iz"):
		return append(w, 'e')
	case n >= 2 && w[n-1] == w[n-2] && consonant(w, n-1):
		if bytes.IndexByte([]byte("lsz"), w[n-1]) < 0 {
			return w[:n-1]
		}
	case measure(w) == 1 && endsCVC(w):
		return append(w, 'e')
	}
	return w
}

var step2 = []rule{
	{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"}, {"bli", "ble"},
	{"alli", "al"}, {"entli", "ent"}, {"eli", "e"}, {"ousli", "ous"}, {"ization", "ize"}, {"ation", "ate"},
	{"ator", "ate"}, {"alism", "al"}, {"iveness", "ive"}, {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},
	{"iviti", "ive"}, {"biliti", "ble"}, {"fulli", "ful"}, // the last is NLTK's
}

// doubleSuffix is step 2.
func doubleSuffix(w []byte) []byte {
	if n := len(w); ends(w, "logi") { // NLTK: the l counts for the stem
		if measure(w[:n-3]) > 0 {
			return w[:n-1]
		}
		return w
	}
	alli := ends(w, "alli")
	w, done := applyFirst(w, step2, 0)
	if alli && done { // NLTK: once more
		w, _ = applyFirst(w, step2, 0)
	}
	return w
}

var step3 = []rule{
	{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""},
}

var step4 = []rule{
	{"al", ""}, {"ance", ""}, {"ence", ""}, {"er", ""}, {"ic", ""}, {"able", ""}, {"ible", ""}, {"ant", ""},
	{"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""}, {"ism", ""}, {"ate", ""}, {"iti", ""}, {"ous", ""},
	{"ive", ""}, {"ize", ""},
}

// bareSuffix is step 4.
func bareSuffix(w []byte) []byte {
	if n := len(w); ends(w, "ion") {
		if measure(w[:n-3]) > 1 && (w[n-4] == 's' || w[n-4] == 't') {
			return w[:n-3]
		}
		return w
	}
	w, _ = applyFirst(w, step4, 1)
	return w
}

// finalE is step 5a.
func finalE(w []byte) []byte {
	if !ends(w, "e") {
		return w
	}
	stem := w[:len(w)-1]
	if m := measure(stem); m > 1 || m == 1 && !endsCVC(stem) {
		return stem
	}
	return w
}
