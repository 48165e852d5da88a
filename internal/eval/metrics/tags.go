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

// RepositoryTags reads gold and answer as the evaluation in Llama2-MedTuned's repository does (nlpie-research/
// BioInstTune-LLM, evaluations/evaluating_ner.py): each becomes a dictionary from token to tag, so that what is compared
// is the gold answer's distinct tokens, in the order they first come, each with the tag of its last line. Of a line the
// first and second field between colons count, so that a token with a colon loses its tag. The answer ends at "###".
// Tokens that the answer lacks and tags that known does not have are O. Entities that repeated tokens tear apart are
// gone from both sides.
func RepositoryTags(gold, answer string, known func(tag string) bool) (goldTags, tags []string) {
	tokens, of := dictionary(gold)
	answer, _, _ = strings.Cut(strings.TrimSpace(answer), "###")
	_, got := dictionary(answer)
	only := func(tag string) string {
		if !known(tag) {
			return "O"
		}
		return tag
	}
	for _, token := range tokens {
		goldTags = append(goldTags, only(of[token]))
		tags = append(tags, only(got[token])) // "" is not known
	}
	return goldTags, tags
}

// dictionary returns the tags of a text's tokens, and the tokens in the order they first come.
func dictionary(text string) (tokens []string, tags map[string]string) {
	tags = map[string]string{}
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		token, rest, ok := strings.Cut(l, ":")
		if !ok {
			continue
		}
		tag, _, _ := strings.Cut(rest, ":")
		token = strings.TrimSpace(token)
		if _, seen := tags[token]; !seen {
			tokens = append(tokens, token)
		}
		tags[token] = strings.TrimSpace(tag)
	}
	return tokens, tags
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
