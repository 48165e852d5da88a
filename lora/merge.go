package lora

import "fmt"

// MergeRows adds the adapter to rows from..to of a module's matrix [Out, In]: dst, which holds those rows of W, becomes
// W + Scale * B A, in float32. Where the module was trained whole, dst becomes its rows of what was trained. It may be
// called from several goroutines at once.
func (s *Saved) MergeRows(dst []float32, module string, from, to int) error {
	if f, ok := s.Full[module]; ok {
		if err := checkRows(module, len(dst), from, to, f.Rows, f.Cols); err != nil {
			return err
		}
		copy(dst, f.Data[from*f.Cols:])
		return nil
	}
	l, ok := s.Modules[module]
	if !ok {
		return fmt.Errorf("the adapter does not change %s", module)
	}
	if err := checkRows(module, len(dst), from, to, l.Out, l.In); err != nil {
		return err
	}
	delta := make([]float32, l.In)
	scale := float32(l.Scale)
	for row := from; row < to; row++ {
		l.product(delta, row)
		w := dst[(row-from)*l.In:][:l.In]
		for i, d := range delta {
			w[i] += float32(scale * d)
		}
	}
	return nil
}

func checkRows(module string, n, from, to, rows, cols int) error {
	if from < 0 || to < from || to > rows {
		return fmt.Errorf("%s: rows %d to %d of %d", module, from, to, rows)
	}
	if n != (to-from)*cols {
		return fmt.Errorf("%s: %d elements, want %d rows of %d", module, n, to-from, cols)
	}
	return nil
}

// product is one row of B A: [1, R] x [R, In] -> [1, In]. Four rows of A go together; each product is rounded before
// it is added, so that the bits are the same on every machine.
func (l *LowRank) product(dst []float32, row int) {
	clear(dst)
	b := l.B[row*l.R:][:l.R]
	k := 0
	for ; k+4 <= l.R; k += 4 {
		a0, a1, a2, a3 := l.row(k), l.row(k+1), l.row(k+2), l.row(k+3)
		b0, b1, b2, b3 := b[k], b[k+1], b[k+2], b[k+3]
		for i := range dst {
			dst[i] += (float32(b0*a0[i]) + float32(b1*a1[i])) + (float32(b2*a2[i]) + float32(b3*a3[i]))
		}
	}
	for ; k < l.R; k++ {
		for i, a := range l.row(k) {
			dst[i] += float32(b[k] * a)
		}
	}
}

func (l *LowRank) row(k int) []float32 { return l.A[k*l.In:][:l.In] }
