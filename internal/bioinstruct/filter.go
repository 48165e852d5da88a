package bioinstruct

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/eval/rouge"
)

// Reason is why a task is not accepted.
type Reason string

// The reasons, in the order in which they are looked for.
const (
	Unreadable   Reason = "not in the form that was asked for"
	Truncated    Reason = "cut off at the end of the answer"
	NoOutput     Reason = "no output"
	TooShort     Reason = "instruction of 3 words or fewer"
	TooLong      Reason = "instruction of more than 150 words"
	Blacklisted  Reason = "asks for what text cannot do"
	Program      Reason = "asks for a program"
	Punctuation  Reason = "begins with punctuation"
	NotASCII     Reason = "begins with a character that is not ASCII"
	LikeSeed     Reason = "ROUGE-L above 0.7 with a seed"
	LikeAccepted Reason = "ROUGE-L above 0.7 with an accepted instruction"
)

// Reasons are all reasons in their order.
var Reasons = []Reason{Unreadable, Truncated, NoOutput, TooShort, TooLong, Blacklisted, Program, Punctuation, NotASCII, LikeSeed, LikeAccepted}

// threshold is the F-measure of ROUGE-L, without a stemmer, that two instructions may have at most [I].
const threshold = 0.7

// blacklist are the words of Self-Instruct's and Alpaca's filters: tasks that text alone does not do.
var blacklist = regexp.MustCompile(`(?i)\b(?:images?|graphs?|pictures?|files?|maps?|draw|plot|go to|videos?|audios?|music|flowcharts?|diagrams?)\b`)

// words counts what white space separates.
func words(text string) int { return len(strings.Fields(text)) }

// form says whether a task's own form is good; empty: it is. BioInstruct's own filter is not known; this one rejects none
// of the 2,501 rows of it that were looked at.
func form(t Task) Reason {
	first, _ := utf8.DecodeRuneInString(strings.TrimSpace(t.Instruction))
	switch n := words(t.Instruction); {
	case strings.TrimSpace(t.Output) == "":
		return NoOutput
	case n <= 3:
		return TooShort
	case n > 150:
		return TooLong
	case blacklist.MatchString(t.Instruction):
		return Blacklisted
	case strings.HasPrefix(strings.ToLower(t.Instruction), "write a program"):
		return Program
	case first > unicode.MaxASCII:
		return NotASCII
	case !unicode.IsLetter(first) && !unicode.IsDigit(first):
		return Punctuation
	}
	return ""
}

// Filter accepts tasks one after another: each is compared with the seeds and with those accepted before.
type Filter struct {
	seeds int
	index *rouge.Index
}

// NewFilter returns a filter that searches with the given number of workers. Its decisions do not depend on them.
func NewFilter(seeds []Seed, workers int) *Filter {
	f := &Filter{seeds: len(seeds), index: rouge.NewIndex(false, workers)}
	for _, s := range seeds {
		f.index.Add(s.Instruction)
	}
	return f
}

// Close ends the workers.
func (f *Filter) Close() { f.index.Close() }

// Accept accepts a task, or says why not; near is then the number of the text that the instruction is like, seeds first.
func (f *Filter) Accept(t Task) (why Reason, near string) {
	if why := form(t); why != "" {
		return why, ""
	}
	m, ok := f.index.Nearest(t.Instruction, threshold)
	switch {
	case !ok:
		f.index.Add(t.Instruction)
		return "", ""
	case m.Text < f.seeds:
		return LikeSeed, fmt.Sprintf("seed %d, %.3f", m.Text+1, m.F)
	default:
		return LikeAccepted, fmt.Sprintf("accepted task %d, %.3f", m.Text-f.seeds+1, m.F)
	}
}
