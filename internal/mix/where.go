package mix

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/biolora/biolora/internal/rows"
)

// Where is a condition on rows: an expression over the strings task, category, source, split, id, instruction, input and
// output, such as
//
//	category in ["QA", "IE"] && split == "train"
//	not (source startsWith "i2b2") and len(output) > 0
//
// The language is that of github.com/expr-lang/expr without what can take more time or memory than the row and the
// expression are long: of its functions there are len, lower, upper, trim, indexOf and lastIndexOf; there are no
// definitions, no ranges and no loops. The zero Where holds for every row.
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
	options := []expr.Option{expr.Env(fields{}), expr.AsBool(), expr.DisableAllBuiltins()}
	for _, name := range []string{"len", "lower", "upper", "trim", "indexOf", "lastIndexOf"} {
		options = append(options, expr.EnableBuiltin(name))
	}
	var bounded bounds
	p, err := expr.Compile(text, append(options, expr.Patch(&bounded), expr.Optimize(false))...)
	if err != nil {
		return Where{}, fmt.Errorf("expression %q: %w", text, err)
	}
	if bounded.refused != "" {
		return Where{}, fmt.Errorf("expression %q: %s are not for conditions on rows", text, bounded.refused)
	}
	return Where{text, p}, nil
}

// bounds looks for what lets a short expression take long.
type bounds struct{ refused string }

func (b *bounds) Visit(n *ast.Node) {
	switch n := (*n).(type) {
	case *ast.VariableDeclaratorNode:
		b.refused = "definitions (let)"
	case *ast.PredicateNode:
		b.refused = "loops"
	case *ast.BinaryNode:
		if n.Operator == ".." {
			b.refused = "ranges (..)"
		}
	}
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
