package metrics

import (
	"fmt"
	"strings"
)

// TokenTag is a line of an answer that tags tokens.
type TokenTag struct{ Token, Tag string }

// ParseTags reads lines "token : tag". The last colon of a line separates, spaces around both are dropped. Lines that
// are not empty and lack one of the three are counted as unread.
func ParseTags(text string) (lines []TokenTag, unread int) {
	for l := range strings.SplitSeq(text, "\n") {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		i := strings.LastIndexByte(l, ':')
		if i < 0 {
			unread++
			continue
		}
		t := TokenTag{strings.TrimSpace(l[:i]), strings.TrimSpace(l[i+1:])}
		if t.Token == "" || t.Tag == "" {
			unread++
			continue
		}
		lines = append(lines, t)
	}
	return lines, unread
}

// FormatTags writes tokens and tags as ParseTags reads them.
func FormatTags(lines []TokenTag) string {
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s : %s", l.Token, l.Tag)
	}
	return b.String()
}

// RepositoryTags gives each token the tag that the answer gives to the same text, as Llama2-MedTuned's evaluation does:
// it keeps a dictionary by token, so that of a repeated token the last line counts everywhere; tokens that are missing
// and tags that known does not have are O. That the gold tags stay those of each token, and that the last line counts,
// is inferred, not published.
func RepositoryTags(tokens []string, answer []TokenTag, known func(tag string) bool) []string {
	of := make(map[string]string, len(answer))
	for _, a := range answer {
		of[a.Token] = a.Tag
	}
	tags := make([]string, len(tokens))
	for i, token := range tokens {
		tags[i] = "O"
		if tag, ok := of[token]; ok && known(tag) {
			tags[i] = tag
		}
	}
	return tags
}

// linesPerToken is how many lines of an answer are aligned for each token of the sentence; more is a model that went
// round in circles.
const linesPerToken = 8

// AlignTags gives each token the tag of the line that is aligned with it, in a longest common subsequence of the
// sentence's tokens and the answer's; tokens without a line, and tags that known does not have, are O. So every
// occurrence of a repeated token has a tag of its own, and a left-out or invented line does not shift the others. Where
// several alignments are as long, early lines of the answer go first. Lines beyond 8 for each token are not looked at.
// Read is the number of tokens whose tag is known.
func AlignTags(tokens []string, answer []TokenTag, known func(tag string) bool) (tags []string, read int) {
	tags = make([]string, len(tokens))
	for i := range tags {
		tags[i] = "O"
	}
	answer = answer[:min(len(answer), linesPerToken*len(tokens))]
	cols := len(answer) + 1
	left := make([]int32, (len(tokens)+1)*cols) // [tokens+1, lines+1]: length of the subsequence of what is left
	for i := len(tokens) - 1; i >= 0; i-- {
		row, below := left[i*cols:(i+1)*cols], left[(i+1)*cols:]
		for j := len(answer) - 1; j >= 0; j-- {
			if tokens[i] == answer[j].Token {
				row[j] = below[j+1] + 1
			} else {
				row[j] = max(below[j], row[j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(tokens) && j < len(answer); {
		switch {
		case tokens[i] == answer[j].Token:
			if known(answer[j].Tag) {
				tags[i] = answer[j].Tag
				read++
			}
			i, j = i+1, j+1
		case left[(i+1)*cols+j] >= left[i*cols+j+1]:
			i++
		default:
			j++
		}
	}
	return tags, read
}
