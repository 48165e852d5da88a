package mix

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"github.com/biolora/biolora/internal/rows"
)

// Where is a condition on rows: an expression over the strings task, category, source, split, id, instruction, input and
// output, such as
//
//	category in ["QA", "IE"] && split == "train"
//	not (source startsWith "i2b2") and len(output) > 0
//
// The language is that of github.com/expr-lang/expr. The zero Where holds for every row.
type Where struct {
	text    string
	program *vm.Program
}

// fields are the names that an expression knows.
type fields struct {
	Task        string `expr:"task"`
	Category    string `expr:"category"`
	Source      string `expr:"source"`
	Split       string `expr:"split"`
	ID          string `expr:"id"`
	Instruction string `expr:"instruction"`
	Input       string `expr:"input"`
	Output      string `expr:"output"`
}

// maxExpression is the longest text of an expression, in bytes.
const maxExpression = 4096

// ParseWhere reads an expression; an empty one holds for every row.
func ParseWhere(text string) (Where, error) {
	if text == "" {
		return Where{}, nil
	}
	if len(text) > maxExpression {
		return Where{}, fmt.Errorf("an expression of %d bytes, at most %d", len(text), maxExpression)
	}
	// What differs from run to run is not for a data set that is made from a seed.
	p, err := expr.Compile(text, expr.Env(fields{}), expr.AsBool(), expr.DisableBuiltin("now"))
	if err != nil {
		return Where{}, fmt.Errorf("expression %q: %w", text, err)
	}
	return Where{text, p}, nil
}

// String returns the expression.
func (w Where) String() string { return w.text }

// Holds reports whether the condition holds for a row.
func (w Where) Holds(r *rows.Row) (bool, error) {
	if w.program == nil {
		return true, nil
	}
	v, err := expr.Run(w.program, fields{r.Task, r.Category, r.Source, r.Split, r.ID, r.Instruction, r.Input, r.Output})
	if err != nil {
		return false, fmt.Errorf("expression %q: %w", w.text, err)
	}
	holds, ok := v.(bool)
	if !ok {
		return false, errors.New("expression " + w.text + " is not a condition")
	}
	return holds, nil
}
