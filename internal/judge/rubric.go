package judge

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/regular"
)

// Rubric is what a judge is told: a text with fields for what is marked.
type Rubric struct {
	Name string // in results and messages
	// Text has the fields {instruction}, {input}, {reference} and {answer}, each at least once; {fence}, which becomes
	// letters and digits that nobody who wrote an answer could know; and "Mark:", since that is how a reply's last line
	// begins. One that has "Reason:" asks for a reason, too. See Parse.
	Text string
}

//go:embed rubric.txt
var builtIn string

// BuiltIn is the rubric of this project's own wording. That of BioInstruct's authors is not known.
func BuiltIn() Rubric { return Rubric{"built-in", builtIn} }

// maxRubric is the longest rubric, in bytes.
const maxRubric = 64 << 10

// LoadRubric reads a rubric of a user's and checks it.
func LoadRubric(path string) (Rubric, error) {
	text, err := regular.ReadFile(path, maxRubric)
	if err != nil {
		return Rubric{}, err
	}
	r := Rubric{filepath.Base(path), string(text)}
	if err := r.Check(); err != nil {
		return Rubric{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// The fields, of which {fence} need not be there.
var fields = []string{"{instruction}", "{input}", "{reference}", "{answer}", "{fence}"}

// field is what looks like one.
var field = regexp.MustCompile(`\{[A-Za-z_]+\}`)

// Check gathers what is wrong with a rubric.
func (r Rubric) Check() error {
	var errs []error
	if !utf8.ValidString(r.Text) {
		errs = append(errs, errors.New("the rubric is not UTF-8"))
	}
	for _, f := range fields[:4] {
		if !strings.Contains(r.Text, f) {
			errs = append(errs, fmt.Errorf("the rubric has no %s", f))
		}
	}
	number := 0
	for line := range strings.Lines(r.Text) {
		number++
		for _, f := range field.FindAllString(line, -1) {
			if !slices.Contains(fields, f) {
				errs = append(errs, fmt.Errorf("line %d: %s is none of the fields %s", number, f, strings.Join(fields, ", ")))
			}
		}
	}
	if !strings.Contains(r.Text, "Mark:") {
		errs = append(errs, errors.New(`the rubric does not say that the last line of a reply is "Mark:" and a number`))
	}
	return errors.Join(errs...)
}

// Reasons reports whether the rubric asks for a reason.
func (r Rubric) Reasons() bool { return strings.Contains(r.Text, "Reason:") }

// ID is the beginning of the SHA-256 of the text.
func (r Rubric) ID() string { return fingerprint.Texts(r.Text)[:16] }

// prompt is the question about an item. What its texts say is not looked at for fields.
func (r Rubric) prompt(x Item) string {
	return strings.NewReplacer(
		"{instruction}", x.Instruction,
		"{input}", x.Input,
		"{reference}", x.Reference,
		"{answer}", x.Answer,
		"{fence}", fingerprint.Texts(x.Instruction, x.Input, x.Reference, x.Answer)[:8],
	).Replace(r.Text)
}
