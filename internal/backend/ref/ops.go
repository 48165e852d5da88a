package ref

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
)

func (*Backend) Embed(x backend.Buffer, e *backend.Embedding, b *backend.Batch) {
	out, table := mat(x), embeddingTable(e)
	out.Resize(len(b.Tokens))
	for t, id := range b.Tokens {
		copy(out.row(t), table.row(int(id)))
	}
}

func embeddingTable(e *backend.Embedding) *Matrix {
	if e.Train != nil {
		return &e.Train.(*Param).Matrix
	}
	return e.Weight.(*Matrix)
}

func (*Backend) EmbedBackward(e *backend.Embedding, dx backend.Buffer, b *backend.Batch) {
	grad, d := e.Train.(*Param).Grad, mat(dx)
	for t, id := range b.Tokens {
		if id == e.Padding {
			continue
		}
		for j, v := range d.row(t) {
			grad[int(id)*d.cols+j] += v
		}
	}
}

func (*Backend) RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32) {
	out, rs, in, gain := mat(y), mat(rstd), mat(x), g.(*Matrix).V
	out.Resize(in.rows)
	rs.Resize(in.rows)
	for t := range in.rows {
		var ss float64
		for _, v := range in.row(t) {
			ss += v * v
		}
		r := 1 / math.Sqrt(ss/float64(in.cols)+float64(eps))
		rs.V[t] = r
		for j, v := range in.row(t) {
			out.row(t)[j] = gain[j] * v * r
		}
	}
}

func (*Backend) RMSNormBackward(dx, x, rstd, dy, add backend.Buffer, g backend.Vector) {
	out, in, rs, dout, gain := mat(dx), mat(x), mat(rstd), mat(dy), g.(*Matrix).V
	out.Resize(in.rows)
	for t := range in.rows {
		r := rs.V[t]
		var dot float64 // of the normalised row's gradient with the row
		for j, v := range dout.row(t) {
			dot += v * gain[j] * in.row(t)[j]
		}
		dot *= r * r / float64(in.cols)
		for j, v := range dout.row(t) {
			out.row(t)[j] = r * (v*gain[j] - dot*in.row(t)[j])
			if add != nil {
				out.row(t)[j] += mat(add).row(t)[j]
			}
		}
	}
}

// dropped returns the factors of drop(x) for row t, or nil where nothing is dropped.
func dropped(l *backend.Linear, b *backend.Batch, t, cols int) []float32 {
	if b.Dropout == nil || l.Dropout == 0 || l.A == nil {
		return nil
	}
	mask := make([]float32, cols)
	b.Dropout.Mask(mask, l.Dropout, l.Site, t, b.Positions[t])
	return mask
}

// rowOf is the row of the batch that row t of an input is.
func rowOf(t int, rows []int32) int {
	if rows == nil {
		return t
	}
	return int(rows[t])
}

func dropRow(x []float64, mask []float32) []float64 {
	if mask == nil {
		return x
	}
	y := make([]float64, len(x))
	for i := range y {
		y[i] = x[i] * float64(mask[i])
	}
	return y
}

func dot(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func (*Backend) Linear(y, h, x, add backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	linear(y, h, x, add, ls, b, nil)
}

// linear is Linear for an x whose row i is row rows[i] of the batch; nil: row i.
func linear(y, h, x, add backend.Buffer, ls []*backend.Linear, b *backend.Batch, rows []int32) {
	in := mat(x)
	if y == nil { // only h is wanted: the rest goes nowhere
		scratch := &Matrix{}
		for _, l := range ls {
			scratch.cols += l.Out
		}
		y = scratch
	}
	out := mat(y)
	out.Resize(in.rows)
	if h != nil {
		mat(h).Resize(in.rows)
	}
	for t := range in.rows {
		col, rank := 0, 0
		for _, l := range ls {
			w := linearWeight(l)
			if w.rows != l.Out || w.cols != in.cols {
				panic(fmt.Sprintf("%s: weight [%d, %d] for x [%d, %d]", l.Name, w.rows, w.cols, in.rows, in.cols))
			}
			xr := in.row(t)
			yr := out.row(t)[col : col+l.Out]
			for o := range l.Out {
				yr[o] = dot(xr, w.row(o)) // [1, In] x [In, Out] -> [1, Out]
				if l.Bias != nil {
					yr[o] += l.Bias.(*Matrix).V[o]
				}
				if add != nil {
					yr[o] += mat(add).row(t)[col+o]
				}
			}
			if l.A != nil {
				a, bm := &l.A.(*Param).Matrix, &l.B.(*Param).Matrix
				hr := mat(h).row(t)[rank : rank+a.rows]
				xd := dropRow(xr, dropped(l, b, rowOf(t, rows), in.cols))
				for r := range hr {
					hr[r] = dot(xd, a.row(r)) // [1, In] x [In, R] -> [1, R]
				}
				for o := range yr {
					yr[o] += float64(l.Scale) * dot(hr, bm.row(o)) // [1, R] x [R, Out] -> [1, Out]
				}
				rank += a.rows
			}
			col += l.Out
		}
		if col != out.cols {
			panic(fmt.Sprintf("linears have %d columns, the output %d", col, out.cols))
		}
	}
}

func (*Backend) LinearBackward(dx, x, h, dy backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	linearBackward(dx, x, h, dy, ls, b, nil)
}

func linearBackward(dx, x, h, dy backend.Buffer, ls []*backend.Linear, b *backend.Batch, rows []int32) {
	dout := mat(dy)
	if dx != nil {
		mat(dx).Resize(dout.rows)
		clear(mat(dx).V)
	}
	for t := range dout.rows {
		col, rank := 0, 0
		for _, l := range ls {
			g := dout.row(t)[col : col+l.Out]
			if dx != nil {
				w := linearWeight(l)
				for o, v := range g {
					axpy(mat(dx).row(t), v, w.row(o)) // [1, Out] x [Out, In] -> [1, In]
				}
			}
			if l.Train != nil {
				p := l.Train.(*Param)
				for o, v := range g {
					axpy(p.Grad[o*p.cols:(o+1)*p.cols], v, mat(x).row(t))
				}
			}
			if l.A != nil {
				a, bm := l.A.(*Param), l.B.(*Param)
				hr := mat(h).row(t)[rank : rank+a.rows]
				mask := dropped(l, b, rowOf(t, rows), l.In)
				xd := dropRow(mat(x).row(t), mask)
				for o, v := range g {
					axpy(bm.Grad[o*bm.cols:(o+1)*bm.cols], float64(l.Scale)*v, hr)
				}
				for r := range a.rows {
					var dh float64
					for o, v := range g {
						dh += float64(l.Scale) * v * bm.row(o)[r]
					}
					axpy(a.Grad[r*a.cols:(r+1)*a.cols], dh, xd)
					if dx == nil {
						continue
					}
					row := a.row(r)
					if mask != nil {
						row = dropRow(row, mask)
					}
					axpy(mat(dx).row(t), dh, row)
				}
				rank += a.rows
			}
			col += l.Out
		}
	}
}

func axpy(y []float64, a float64, x []float64) {
	for i := range y {
		y[i] += a * x[i]
	}
}

func (be *Backend) GateUp(y, gu, h, x backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	be.Linear(gu, h, x, nil, []*backend.Linear{gate, up}, b)
	if y != nil {
		be.SwiGLU(y, gu)
	}
}

func (*Backend) SwiGLU(y, gu backend.Buffer) {
	out, in := mat(y), mat(gu)
	out.Resize(in.rows)
	for t := range in.rows {
		g, u := in.row(t)[:out.cols], in.row(t)[out.cols:]
		for j := range g {
			out.row(t)[j] = g[j] / (1 + math.Exp(-g[j])) * u[j]
		}
	}
}

func (be *Backend) GateUpBackward(dx, x, gu, h, dy backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	in, dout := mat(gu), mat(dy)
	d := &Matrix{cols: in.cols}
	d.Resize(in.rows)
	for t := range in.rows {
		g, u := in.row(t)[:dout.cols], in.row(t)[dout.cols:]
		dg, du := d.row(t)[:dout.cols], d.row(t)[dout.cols:]
		for j, v := range dout.row(t) {
			s := 1 / (1 + math.Exp(-g[j]))
			dg[j] = v * u[j] * s * (1 + g[j]*(1-s))
			du[j] = v * g[j] * s
		}
	}
	be.LinearBackward(dx, x, h, d, []*backend.Linear{gate, up}, b)
}

func (*Backend) Gather(y, x backend.Buffer, b *backend.Batch) {
	mat(y).Resize(len(b.Rows))
	for i, r := range b.Rows {
		copy(mat(y).row(i), mat(x).row(int(r)))
	}
}

func (*Backend) GatherBackward(dx, dy backend.Buffer, b *backend.Batch) {
	mat(dx).Resize(len(b.Tokens))
	clear(mat(dx).V)
	for i, r := range b.Rows {
		copy(mat(dx).row(int(r)), mat(dy).row(i))
	}
}

func (*Backend) CrossEntropy(s backend.Sum, dx, x backend.Buffer, head *backend.Linear, b *backend.Batch) {
	if mat(x).rows != len(b.Rows) {
		panic(fmt.Sprintf("%d rows of x for %d rows with a target", mat(x).rows, len(b.Rows)))
	}
	logits := &Matrix{cols: head.Out}
	var h backend.Buffer
	if head.A != nil {
		h = &Matrix{cols: head.R()}
	}
	linear(logits, h, x, nil, []*backend.Linear{head}, b, b.Rows)
	d := &Matrix{cols: head.Out}
	d.Resize(logits.rows)
	clear(d.V)
	for _, t := range b.Targets {
		row, grad, n := logits.row(int(t.Row)), d.row(int(t.Row)), float64(t.Count)
		lse := logSumExp(row)
		*s.(*sum) += sum(n * (lse - row[t.Label]))
		for j, v := range row {
			grad[j] += n * math.Exp(v-lse)
		}
		grad[t.Label] -= n
	}
	if dx != nil {
		linearBackward(dx, x, h, d, []*backend.Linear{head}, b, b.Rows)
	}
}

func logSumExp(row []float64) float64 {
	top := math.Inf(-1)
	for _, v := range row {
		top = math.Max(top, v)
	}
	var s float64
	for _, v := range row {
		s += math.Exp(v - top)
	}
	return top + math.Log(s)
}
