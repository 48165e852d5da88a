package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
)

// normInt is an integer in the form that values have: int64 where it fits.
func normInt(b *big.Int) any {
	if b.IsInt64() {
		return b.Int64()
	}
	return b
}

// asBig returns an integer or boolean.
func asBig(v any) (*big.Int, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1), true
		}
		return new(big.Int), true
	case int64:
		return big.NewInt(v), true
	case *big.Int:
		return v, true
	}
	return nil, false
}

// asInt returns an integer or boolean that fits an int64.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return v, true
	}
	return 0, false
}

// index is the argument of a template that must be an integer; what is far out of range is moved to its end.
func (r *run) index(v any, what string) int {
	if i, ok := asInt(v); ok {
		return int(max(min(i, math.MaxInt32), math.MinInt32))
	}
	if b, ok := v.(*big.Int); ok {
		return b.Sign() * math.MaxInt32
	}
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	r.fail("%s: '%s' object cannot be interpreted as an integer", what, typeName(v))
	return 0
}

// isNumber reports whether v takes part in arithmetic.
func isNumber(v any) bool {
	switch v.(type) {
	case bool, int64, *big.Int, float64:
		return true
	}
	return false
}

// float is a number as a float.
func (r *run) float(v any) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	b, _ := asBig(v)
	f, _ := new(big.Float).SetInt(b).Float64()
	if math.IsInf(f, 0) {
		r.fail("int too large to convert to float")
	}
	return f
}

// compareNumbers orders two numbers exactly; ok is false if one is none.
func compareNumbers(a, b any) (c int, ordered, ok bool) {
	if x, is := a.(int64); is {
		if y, is := b.(int64); is {
			return compareInts(x, y), true, true
		}
	}
	if !isNumber(a) || !isNumber(b) {
		return 0, false, false
	}
	x, y := exact(a), exact(b)
	if x == nil || y == nil {
		return 0, false, true
	}
	return x.Cmp(y), true, true
}

func compareInts(a, b int64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// exact is a number without rounding, nil for NaN.
func exact(v any) *big.Float {
	if f, ok := v.(float64); ok {
		if math.IsNaN(f) {
			return nil
		}
		return big.NewFloat(f)
	}
	b, _ := asBig(v)
	return new(big.Float).SetInt(b) // as many bits as it has
}

// integer writes an integer.
func (r *run) integer(v any) string {
	if i, ok := v.(int64); ok {
		return strconv.FormatInt(i, 10)
	}
	b := v.(*big.Int)
	if b.BitLen() > maxDigits*4 {
		r.tooManyDigits()
	}
	s := b.String()
	if len(strings.TrimPrefix(s, "-")) > maxDigits {
		r.tooManyDigits()
	}
	return s
}

func (r *run) tooManyDigits() {
	r.fail("Exceeds the limit (%d digits) for integer string conversion", maxDigits)
}

// floatRepr writes a float as Python does: the shortest digits that give it back.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// parseFloat is Python's float() of a string.
func parseFloat(s string) (float64, bool) {
	s = asciiDigits(strings.TrimFunc(s, isSpace))
	if !isNumberText(s) {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	return f, err == nil || err.(*strconv.NumError).Err == strconv.ErrRange
}

// asciiDigits writes the decimal digits of all scripts as those of ASCII.
func asciiDigits(s string) string {
	if isASCII(s) {
		return s
	}
	return strings.Map(func(c rune) rune {
		for _, g := range unicode.Nd.R16 {
			if rune(g.Lo) <= c && c <= rune(g.Hi) {
				return '0' + (c-rune(g.Lo))%10
			}
		}
		for _, g := range unicode.Nd.R32 {
			if rune(g.Lo) <= c && c <= rune(g.Hi) {
				return '0' + (c-rune(g.Lo))%10
			}
		}
		return c
	}, s)
}

// isNumberText keeps out what strconv reads and Python does not: hexadecimal, and underscores that are not between
// digits.
func isNumberText(s string) bool {
	if strings.ContainsAny(s, "xX") {
		return false
	}
	for i := range len(s) {
		if s[i] == '_' && (i == 0 || i == len(s)-1 || !decimal(s[i-1]) || !decimal(s[i+1])) {
			return false
		}
	}
	return true
}

// parseInt is Python's int() of a string.
func (r *run) parseInt(s string, base int) (any, bool) {
	s = asciiDigits(strings.TrimFunc(s, isSpace))
	if len(s) > maxDigits && base&(base-1) != 0 || len(s) > bigBits/8 {
		r.tooManyDigits()
	}
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	prefix := map[int]string{2: "0b", 8: "0o", 16: "0x"}[base]
	if prefix != "" && len(s) > 2 && strings.EqualFold(s[:2], prefix) {
		s = strings.TrimPrefix(s[2:], "_")
	}
	for i := range len(s) {
		if s[i] == '_' && (i == 0 || i == len(s)-1 || s[i-1] == '_') || s[i] == '-' || s[i] == '+' {
			return nil, false
		}
	}
	if base == 0 {
		if n := integerLength(s + " "); n != len(s) {
			return nil, false
		}
	} else {
		s = strings.ReplaceAll(s, "_", "")
	}
	b, ok := new(big.Int).SetString(sign+s, base)
	if !ok {
		return nil, false
	}
	return normInt(b), true
}

// binary is one of Python's operators.
func (r *run) binary(op string, a, b any) any {
	if isNumber(a) && isNumber(b) {
		return r.arithmetic(op, a, b)
	}
	if s, ok := plain(a); ok && op == "%" {
		_, safe := a.(markup)
		return like(a, r.printf(s, b, safe))
	}
	for _, v := range []any{a, b} {
		if u, ok := v.(*undefined); ok {
			r.undefined(u)
		}
	}
	switch op {
	case "+":
		if v, ok := r.join(a, b); ok {
			return v
		}
	case "*":
		if v, ok := r.repeat(a, b); ok {
			return v
		}
		if v, ok := r.repeat(b, a); ok {
			return v
		}
	}
	if _, ok := plain(a); ok && op == "+" {
		r.fail("can only concatenate str (not \"%s\") to str", typeName(b))
	}
	r.fail("unsupported operand type(s) for %s: '%s' and '%s'", op, typeName(a), typeName(b))
	return nil
}

// join is the sum of two sequences of a kind.
func (r *run) join(a, b any) (any, bool) {
	switch a := a.(type) {
	case string, markup:
		s, _ := plain(a)
		t, ok := plain(b)
		if !ok {
			return nil, false
		}
		_, left := a.(markup)
		_, right := b.(markup)
		if left != right { // what is not escaped is
			if left {
				t = r.escape(t)
			} else {
				s = r.escape(s)
			}
		}
		r.allocText(len(s) + len(t))
		if left || right {
			return markup(s + t), true
		}
		return s + t, true
	case *List:
		if b, ok := b.(*List); ok {
			return &List{r.appended(a.items, b.items)}, true
		}
	case *tuple:
		if b, ok := b.(*tuple); ok {
			return &tuple{items: r.appended(a.items, b.items)}, true
		}
	}
	return nil, false
}

func (r *run) appended(a, b []any) []any {
	r.alloc(16 * (len(a) + len(b)))
	r.step((len(a) + len(b)) >> 4)
	return append(append(make([]any, 0, len(a)+len(b)), a...), b...)
}

// repeat is a sequence times a number.
func (r *run) repeat(seq, times any) (any, bool) {
	if _, ok := asBig(times); !ok {
		return nil, false
	}
	if _, ok := times.(*big.Int); ok {
		r.fail("cannot fit 'int' into an index-sized integer")
	}
	n := max(r.index(times, "*"), 0)
	switch seq := seq.(type) {
	case string, markup:
		s, _ := plain(seq)
		t := &text{r: r}
		t.pad(s, n)
		return like(seq, string(t.b)), true
	case *List:
		return &List{r.repeated(seq.items, n)}, true
	case *tuple:
		return &tuple{items: r.repeated(seq.items, n)}, true
	}
	return nil, false
}

func (r *run) repeated(items []any, n int) []any {
	if len(items) == 0 {
		return nil
	}
	if n > r.allocs/16/len(items) {
		r.alloc(r.allocs + 1)
	}
	r.alloc(16 * n * len(items))
	r.step(n * len(items) >> 4)
	out := make([]any, 0, n*len(items))
	for range n {
		out = append(out, items...)
	}
	return out
}

// arithmetic is an operator between numbers.
func (r *run) arithmetic(op string, a, b any) any {
	_, aFloat := a.(float64)
	_, bFloat := b.(float64)
	if aFloat || bFloat {
		return r.floats(op, r.float(a), r.float(b))
	}
	x, okX := asInt(a)
	y, okY := asInt(b)
	if okX && okY && op != "**" && op != "/" {
		if v, ok := r.small(op, x, y); ok {
			return v
		}
	}
	bx, _ := asBig(a)
	by, _ := asBig(b)
	return r.bigs(op, bx, by)
}

// small is arithmetic on small integers; ok is false where it may overflow.
func (r *run) small(op string, x, y int64) (any, bool) {
	const half = 1 << 31
	near := -half < x && x < half && -half < y && y < half
	switch op {
	case "+":
		return x + y, near
	case "-":
		return x - y, near
	case "*":
		return x * y, near
	}
	if y == 0 || !near {
		return nil, false
	}
	q, m := x/y, x%y
	if m != 0 && (m < 0) != (y < 0) {
		q, m = q-1, m+y
	}
	if op == "//" {
		return q, true
	}
	return m, true
}

func (r *run) bigs(op string, x, y *big.Int) any {
	if y.Sign() == 0 && (op == "/" || op == "//" || op == "%") {
		r.fail("division by zero")
	}
	r.step((x.BitLen() + y.BitLen()) >> 4)
	z := new(big.Int)
	switch op {
	case "+":
		z.Add(x, y)
	case "-":
		z.Sub(x, y)
	case "*":
		z.Mul(x, y)
	case "/":
		f, _ := new(big.Rat).SetFrac(x, y).Float64()
		if math.IsInf(f, 0) {
			r.fail("integer division result too large for a float")
		}
		return f
	case "//", "%":
		m := new(big.Int)
		z.QuoRem(x, y, m)
		if m.Sign() != 0 && (m.Sign() < 0) != (y.Sign() < 0) {
			z.Sub(z, big.NewInt(1))
			m.Add(m, y)
		}
		if op == "%" {
			z = m
		}
	case "**":
		return r.power(x, y)
	}
	r.bounded(z.BitLen())
	return normInt(z)
}

func (r *run) bounded(bits int) {
	if bits > bigBits {
		r.fail("an integer of more than %d bits", bigBits)
	}
	r.alloc(bits >> 3)
}

func (r *run) power(x, y *big.Int) any {
	if y.Sign() < 0 {
		if x.Sign() == 0 {
			r.fail("0.0 cannot be raised to a negative power")
		}
		return r.floats("**", r.float(x), r.float(y))
	}
	if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > bigBits || int64(x.BitLen()-1)*y.Int64() > bigBits) {
		r.bounded(bigBits + 1)
	}
	if x.BitLen() <= 1 && y.Sign() > 0 { // 0, 1 and -1 to any power: only whether it is odd matters
		y = new(big.Int).Sub(big.NewInt(2), new(big.Int).And(y, big.NewInt(1)))
	}
	z := new(big.Int)
	z.Exp(x, y, nil)
	r.bounded(z.BitLen())
	r.step(z.BitLen())
	return normInt(z)
}

func (r *run) floats(op string, x, y float64) any {
	if y == 0 && (op == "/" || op == "//" || op == "%") {
		r.fail("float division by zero")
	}
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	case "//":
		q, _ := floorDivide(x, y)
		return q
	case "%":
		_, m := floorDivide(x, y)
		return m
	}
	if x == 0 && y < 0 {
		r.fail("0.0 cannot be raised to a negative power")
	}
	if x < 0 && y != math.Trunc(y) {
		r.fail("complex numbers are not supported")
	}
	z := math.Pow(x, y)
	if math.IsInf(z, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
		r.fail("Numerical result out of range")
	}
	return z
}

// floorDivide is Python's divmod of floats.
func floorDivide(x, y float64) (q, m float64) {
	m = math.Mod(x, y)
	q = (x - m) / y
	if m != 0 {
		if (y < 0) != (m < 0) {
			m += y
			q--
		}
	} else {
		m = math.Copysign(0, y)
	}
	if q == 0 {
		return math.Copysign(0, x/y), m
	}
	f := math.Floor(q)
	if q-f > 0.5 {
		f++
	}
	return f, m
}

// sign is a plus or minus before a number.
func (r *run) sign(op string, v any) any {
	if u, ok := v.(*undefined); ok {
		r.undefined(u)
	}
	if !isNumber(v) {
		r.fail("bad operand type for unary %s: '%s'", op, typeName(v))
	}
	if f, ok := v.(float64); ok {
		if op == "-" {
			f = -f
		}
		return f
	}
	b, _ := asBig(v)
	if op == "-" {
		b = new(big.Int).Neg(b)
	}
	return normInt(b)
}
