package backend

import "fmt"

// CheckLinears panics, in the name of a backend, unless ls fit an input of in columns, an output of out columns and an
// h that has hCols.
func CheckLinears(by string, ls []*Linear, in, out, hCols int) {
	cols, ranks := 0, 0
	for _, l := range ls {
		rows, wide := l.weightShape()
		if l.In != in || rows != l.Out || wide != in {
			panic(fmt.Sprintf("%s: %s: weight [%d, %d] of a linear [%d, %d] for an input of %d columns", by, l.Name, rows, wide, l.Out, l.In, in))
		}
		if l.Bias != nil && l.Bias.Len() != l.Out {
			panic(fmt.Sprintf("%s: %s: a bias of %d for %d outputs", by, l.Name, l.Bias.Len(), l.Out))
		}
		cols += l.Out
		ranks += l.checkBranch(by)
	}
	if cols != out {
		panic(fmt.Sprintf("%s: %s: the linears have %d outputs, the matrix %d columns", by, ls[0].Name, cols, out))
	}
	if hCols < ranks {
		panic(fmt.Sprintf("%s: %s: h has %d columns for ranks of %d together", by, ls[0].Name, hCols, ranks))
	}
}

// CheckLinearBackward is CheckLinears for what LinearBackward is given.
func CheckLinearBackward(by string, dx, x, h, dy Buffer, ls []*Linear) {
	trains := false
	for _, l := range ls {
		trains = trains || l.Trains()
	}
	if trains && x == nil {
		panic(fmt.Sprintf("%s: %s: its input is needed for gradients", by, ls[0].Name))
	}
	in, hCols := ls[0].In, 0
	if dx != nil {
		in = dx.Cols()
	}
	if x != nil {
		in = x.Cols()
		mustFit(by, ls[0], "rows of the gradient", dy.Rows(), x.Rows())
	}
	if dx != nil {
		mustFit(by, ls[0], "columns of dx", dx.Cols(), in)
	}
	if h != nil {
		hCols = h.Cols()
		mustFit(by, ls[0], "rows of h", h.Rows(), dy.Rows())
	}
	CheckLinears(by, ls, in, dy.Cols(), hCols)
}

// CheckAdd panics unless add fits an output [rows, cols].
func CheckAdd(by string, add Buffer, ls []*Linear, rows, cols int) {
	mustFit(by, ls[0], "columns added to the output", add.Cols(), cols)
	mustFit(by, ls[0], "rows added to the output", add.Rows(), rows)
}

func (l *Linear) weightShape() (rows, cols int) {
	if l.Train != nil {
		return l.Train.Shape()
	}
	return l.Weight.Shape()
}

// checkBranch returns the rank.
func (l *Linear) checkBranch(by string) int {
	if l.A == nil {
		return 0
	}
	r, in := l.A.Shape()
	if out, rb := l.B.Shape(); in != l.In || out != l.Out || rb != r {
		panic(fmt.Sprintf("%s: %s: A [%d, %d] and B [%d, %d] for a linear [%d, %d]", by, l.Name, r, in, out, rb, l.Out, l.In))
	}
	return r
}

func mustFit(by string, l *Linear, what string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("%s: %s: %s: %d, want %d", by, l.Name, what, got, want))
	}
}
