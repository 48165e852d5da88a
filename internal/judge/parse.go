package judge

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/ask"
)

// Parse reads a judge's reply: "Mark:" and one of the digits 1 to 5, in the last line; before it, where the rubric asks for
// one, a reason that begins with "Reason:". A reply that is nothing but the digit is a mark as well. Everything else is a
// fault: no mark, several, another number, text around it. It is read strictly, since a reply may quote the answer, and the
// answer may have marks in it. But thoughts of a reasoning model before it (<think>…</think>) and emphasis in Markdown
// are no text around it.
func Parse(reply string, reasons bool) (mark int, reason, fault string) {
	reply = strings.TrimSpace(withoutThoughts(reply))
	if reply == "" {
		return 0, "", "it is empty"
	}
	if mark := digit(reply); mark > 0 {
		return mark, "", ""
	}
	lines := strings.Split(reply, "\n")
	last, marks := 0, 0
	for i, line := range lines {
		if _, ok := after(line, "mark:"); ok {
			last, marks = i, marks+1
		}
	}
	switch {
	case marks == 0:
		return 0, "", `no line of it begins with "Mark:"`
	case marks > 1:
		return 0, "", fmt.Sprintf("%d of its lines are marks", marks)
	case last != len(lines)-1:
		return 0, "", "there is text behind the mark"
	}
	value, _ := after(lines[last], "mark:")
	if mark = digit(value); mark == 0 {
		return 0, "", fmt.Sprintf("%q is not a whole number from 1 to 5", abridged(value))
	}
	before := strings.TrimSpace(strings.Join(lines[:last], "\n"))
	if before == "" {
		return mark, "", ""
	}
	reason, ok := after(before, "reason:")
	if !reasons || !ok {
		return 0, "", "there is text before the mark"
	}
	return mark, reason, ""
}

// digit is the mark that a text is; 0: none.
func digit(text string) int {
	if len(text) == 1 && text[0] >= '1' && text[0] <= '5' {
		return int(text[0] - '0')
	}
	return 0
}

// after is what follows the word that a text begins with, in whatever letter case.
func after(text, word string) (rest string, ok bool) {
	text = strings.TrimFunc(text, around)
	if len(text) < len(word) || !strings.EqualFold(text[:len(word)], word) {
		return "", false
	}
	return strings.TrimFunc(text[len(word):], around), true
}

// around reports whether c is white space or Markdown's emphasis.
func around(c rune) bool { return unicode.IsSpace(c) || strings.ContainsRune("*_`", c) }

// withoutThoughts is a reply without the thoughts that it begins with.
func withoutThoughts(reply string) string {
	rest, ok := strings.CutPrefix(strings.TrimSpace(reply), "<think>")
	if !ok {
		return reply
	}
	if _, said, ended := strings.Cut(rest, "</think>"); ended {
		return said
	}
	return reply
}

// abridged is the beginning of a text.
func abridged(text string) string {
	const most = 40
	if len(text) <= most {
		return text
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// read is what an endpoint's answer says. refused: it would not answer, and will not.
func read(a ask.Answer, reasons bool) (mark int, reason, fault string, refused bool) {
	switch {
	case a.Finish == tooLong:
		return 0, "", "the question has more tokens than the judge's model takes", true
	case a.Finish == "content_filter":
		return 0, "", "the endpoint does not answer: its filter of contents forbids it", true
	case a.Truncated():
		return 0, "", "it is cut off at the most tokens that it may have", false
	}
	mark, reason, fault = Parse(a.Text, reasons)
	return mark, reason, fault, false
}
