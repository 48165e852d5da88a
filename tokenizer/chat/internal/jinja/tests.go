package jinja

import (
	"math/big"
	"unicode"
)

// testFunc answers a test of a value.
type testFunc func(r *run, v any, a args) bool

var tests map[string]testFunc

// about is a test without arguments.
func about(name string, ask func(r *run, v any) bool) testFunc {
	return func(r *run, v any, a args) bool {
		a.bind(r, name, 0)
		return ask(r, v)
	}
}

// against is a test that compares with its argument.
func against(op string) testFunc {
	return func(r *run, v any, a args) bool { return r.compare(op, v, a.bind(r, op, 1, "other")[0]) }
}

func init() { // tests use the table
	remainder := func(r *run, v any, by int64) any { return r.binary("%", v, by) }
	tests = map[string]testFunc{
		"==": against("=="), "eq": against("=="), "equalto": against("=="),
		"!=": against("!="), "ne": against("!="),
		">": against(">"), "gt": against(">"), "greaterthan": against(">"),
		">=": against(">="), "ge": against(">="),
		"<": against("<"), "lt": against("<"), "lessthan": against("<"),
		"<=": against("<="), "le": against("<="),
		"in":   against("in"),
		"odd":  about("odd", func(r *run, v any) bool { return r.equal(remainder(r, v, 2), int64(1), 0) }),
		"even": about("even", func(r *run, v any) bool { return r.equal(remainder(r, v, 2), int64(0), 0) }),
		"divisibleby": func(r *run, v any, a args) bool {
			return r.equal(r.binary("%", v, a.bind(r, "divisibleby", 1, "num")[0]), int64(0), 0)
		},
		"defined":   about("defined", func(_ *run, v any) bool { _, ok := v.(*undefined); return !ok }),
		"undefined": about("undefined", func(_ *run, v any) bool { _, ok := v.(*undefined); return ok }),
		"filter": about("filter", func(r *run, v any) bool {
			s, _ := plain(v)
			return filters[s] != nil
		}),
		"test": about("test", func(r *run, v any) bool {
			s, _ := plain(v)
			return tests[s] != nil
		}),
		"none":    about("none", func(_ *run, v any) bool { return v == nil }),
		"boolean": about("boolean", func(_ *run, v any) bool { _, ok := v.(bool); return ok }),
		"true":    about("true", func(_ *run, v any) bool { return v == true }),
		"false":   about("false", func(_ *run, v any) bool { return v == false }),
		"integer": about("integer", func(_ *run, v any) bool {
			switch v.(type) {
			case int64, *big.Int:
				return true
			}
			return false
		}),
		"float":    about("float", func(_ *run, v any) bool { _, ok := v.(float64); return ok }),
		"number":   about("number", func(_ *run, v any) bool { return isNumber(v) }),
		"string":   about("string", func(_ *run, v any) bool { _, ok := plain(v); return ok }),
		"mapping":  about("mapping", func(_ *run, v any) bool { _, ok := v.(*Dict); return ok }),
		"iterable": about("iterable", func(_ *run, v any) bool { return iterable(v) }),
		"sequence": about("sequence", func(_ *run, v any) bool {
			switch v.(type) {
			case *view, *loop, *iterator:
				return false
			}
			return iterable(v)
		}),
		"callable": about("callable", func(_ *run, v any) bool { return callable(v) }),
		"lower":    about("lower", func(r *run, v any) bool { return oneCase(r.str(v), unicode.IsLower) }),
		"upper":    about("upper", func(r *run, v any) bool { return oneCase(r.str(v), unicode.IsUpper) }),
		"escaped":  about("escaped", func(_ *run, v any) bool { _, ok := v.(markup); return ok }),
		"sameas": func(r *run, v any, a args) bool {
			other := a.bind(r, "sameas", 1, "other")[0]
			return typeName(v) == typeName(other) && isScalar(v) && r.equal(v, other, 0) || v == other
		},
	}
}

// isScalar reports whether equal values are taken for the same one.
func isScalar(v any) bool {
	_, text := plain(v)
	return v == nil || isNumber(v) || text
}
