package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/backendtest"
)

// TestLossChunks: the logits' chunks, and rows without a target beside, change nothing.
func TestLossChunks(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		be.poison = true
		w := backendtest.NewWorld(be, false)
		const n, d, vocab = 45, 20, 70
		head := w.Linear(backendtest.Spec{In: d, Out: vocab, R: 4, Dropout: 0.4, Bias: true}, 5)
		all := w.Rows(n)
		w.Labelled(all, vocab)
		x := w.Values(n*d, 1)
		some, sx := backendtest.EveryThird(all, x, d)
		loss := func(b *backend.Batch, x []float32, chunk int) (float64, []float32) {
			s, dx, bx := be.NewSum().(*sum), be.NewBuffer(backend.Activation, d).(*Buffer), be.NewBuffer(backend.Activation, d).(*Buffer)
			bx.Resize(len(x) / d)
			bx.Write(x)
			leave := be.enter()
			be.crossEntropy(s, dx, bx, head, b, chunk)
			leave()
			got := make([]float32, len(x))
			dx.Read(got)
			return s.Read(), got
		}
		wantSum, wantX := loss(all, x, 1000)
		for _, chunk := range []int{9, 16, 44} {
			s, dx := loss(all, x, chunk)
			wantBits(t, fmt.Sprint(compute, ": dx in chunks of ", chunk), dx, wantX)
			if s != wantSum {
				t.Errorf("%s: chunks of %d: loss %v, want %v", compute, chunk, s, wantSum)
			}
		}
		_, dx := loss(&some, sx, 1000)
		for i, r := range some.Rows {
			wantBits(t, fmt.Sprint(compute, ": dx of row ", r), dx[i*d:(i+1)*d], wantX[int(r)*d:int(r+1)*d])
		}
	}
	for vocab, want := range map[int]int{32000: 512, 128256: 256, 100: 167680 - 167680%128} {
		if got := chunkRows(vocab); got < 256 || vocab > 1000 && got != want {
			t.Errorf("%d rows of %d logits in a chunk, want %d", got, vocab, want)
		}
	}
}

// rowsLoss does rows of logits as CrossEntropy does, and returns the losses of the targets and what takes the logits'
// place.
func rowsLoss(be *Backend, z []float32, rows int, targets []backend.Target, backward bool) (losses []float64, gradient []float32) {
	b := &backend.Batch{Tokens: make([]int32, rows)}
	for i := range rows {
		b.Rows = append(b.Rows, int32(i))
	}
	b.Targets = targets
	leave := be.enter()
	l := &be.losses
	l.logits.shape(be, false, len(z)/rows)
	l.logits.Resize(rows)
	be.grow(&l.shown, 4*int64(len(targets)))
	be.grow(&l.values, 8*int64(len(targets)))
	leave()
	l.logits.Write(z)
	leave = be.enter()
	be.lossRows(0, b, backward)
	losses = make([]float64, len(targets))
	be.fetch(bytesOf(losses), l.values.at)
	leave()
	if backward {
		g := *l.gradientOf(be)
		gradient = make([]float32, len(z))
		g.Read(gradient)
	}
	return losses, gradient
}

// TestLossOrder: each target's loss is where Targets has it.
func TestLossOrder(t *testing.T) {
	be := emulated(t, "f32")
	z := []float32{0, 1, 2, 5, 0, 0}
	targets := []backend.Target{{Row: 1, Label: 0, Count: 1}, {Row: 0, Label: 2, Count: 3}, {Row: 1, Label: 2, Count: 1}, {Row: 0, Label: 0, Count: 1}}
	losses, _ := rowsLoss(be, z, 2, targets, false)
	for i, g := range targets {
		row := z[3*g.Row:][:3]
		var sum float64
		for _, v := range row {
			sum += math.Exp(float64(v))
		}
		if want := float64(g.Count) * (math.Log(sum) - float64(row[g.Label])); math.Abs(losses[i]-want) > 1e-6*want {
			t.Errorf("loss %d is %v, want %v", i, losses[i], want)
		}
	}
}

// TestLossRange: logits far apart give finite losses and gradients, and a NaN is not lost.
func TestLossRange(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		two := []backend.Target{{Label: 1, Count: 2}, {Label: 0, Count: 1}}
		losses, g := rowsLoss(be, []float32{3e38, -3e38, 0, -1e30, -inf}, 1, two, true)
		if want := 2 * (float64(float32(3e38)) * 2); losses[0] != want || losses[1] != 0 {
			t.Errorf("%s: losses %v", compute, losses)
		}
		if !slices.Equal(g, []float32{2, -2, 0, 0, 0}) {
			t.Errorf("%s: gradient %v", compute, g)
		}
		// The first run of a thread has nothing but minus infinities, or a NaN beside them.
		z := make([]float32, 40)
		for i := range z {
			z[i] = -inf
		}
		z[20] = 5
		if losses, g = rowsLoss(be, z, 1, []backend.Target{{Label: 20, Count: 1}}, true); losses[0] != 0 || g[20] != 0 || g[3] != 0 {
			t.Errorf("%s: loss %v, gradient %v beside minus infinities", compute, losses, g)
		}
		for _, bad := range []float32{float32(math.NaN()), inf} {
			z[1] = bad
			if losses, g = rowsLoss(be, z, 1, []backend.Target{{Label: 20, Count: 1}}, true); losses[0]-losses[0] == 0 || g[20]-g[20] == 0 {
				t.Errorf("%s: loss %v, gradient %v of a %v", compute, losses, g, bad)
			}
		}
	}
}

// TestLossWide has more logits than a block reads at once, and rows with more targets than a block has threads, some of
// them the same label.
func TestLossWide(t *testing.T) {
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		w := backendtest.NewWorld(be, false)
		for _, vocab := range []int{1, 9, 5003, 9001} {
			z := w.Values(vocab, 4)
			var targets []backend.Target
			for range 700 {
				targets = append(targets, backend.Target{Label: int32(w.Rand.IntN(min(vocab, 40))), Count: int32(1 + w.Rand.IntN(3))})
			}
			want, wantLosses := make([]float32, vocab), make([]float64, len(targets))
			var sum, all float64
			for _, v := range z {
				sum += math.Exp(float64(v))
			}
			for i, g := range targets {
				wantLosses[i] = float64(g.Count) * (math.Log(sum) - float64(z[g.Label]))
				want[g.Label] -= float32(g.Count)
				all += float64(g.Count)
			}
			for i, v := range z {
				want[i] += float32(all * math.Exp(float64(v)) / sum)
			}
			for _, order := range orders {
				setOrder(t, order)
				losses, got := rowsLoss(be, z, 1, targets, true)
				for i := range losses {
					if math.Abs(losses[i]-wantLosses[i]) > 2e-6*max(1, wantLosses[i]) {
						t.Fatalf("%s: %d logits: loss %d is %v, want %v", compute, vocab, i, losses[i], wantLosses[i])
					}
				}
				tolerance := 2e-6
				if be.half {
					tolerance = 4e-3 // 2^-8, half a unit of bf16's last place
				}
				for i := range got {
					if d := math.Abs(float64(got[i] - want[i])); d > tolerance*math.Abs(float64(want[i]))+1e-4 { // of about 1400
						t.Fatalf("%s: %d logits, order %d: gradient %d is %v, want %v", compute, vocab, order, i, got[i], want[i])
					}
				}
			}
			setOrder(t, 0)
		}
	}
}

// TestLossNothing: rows of which none has a target have no gradient; without rows there is no loss.
func TestLossNothing(t *testing.T) {
	be := emulated(t, "bf16")
	be.poison = true
	w := backendtest.NewWorld(be, true)
	head := w.Linear(backendtest.Spec{In: 8, Out: 30}, 1)
	b := w.Rows(3)
	b.Rows = []int32{0, 2}
	s, x, dx := be.NewSum(), w.Filled(backend.Activation, 2, 8, 1), w.Buffer(backend.Activation, 8)
	be.CrossEntropy(s, dx, x, head, b)
	w.Look("dx", dx)
	wantBits(t, "dx", w.Results[0].V, make([]float32, 16))
	be.CrossEntropy(s, nil, x, head, b)
	b.Rows = nil
	x.Resize(0)
	be.CrossEntropy(s, dx, x, head, b)
	if s.Read() != 0 || dx.Rows() != 0 {
		t.Errorf("loss %v, %d rows", s.Read(), dx.Rows())
	}
}

func init() {
	const in = "loss.cu"
	add := func(from, to, test string) {
		faults = append(faults, fault{in, "cross_entropy", from, to, test})
	}
	add("sum = fma(sum, q, div_rn(1.0, (double)k))", "sum = fma(sum, q, div_rn(1.0, (double)(k + 2)))", "TestLossWide")
	add("if (m > 1.4142135623730951) m *= 0.5, e++", "if (m > 1.4142135623730951) m *= 0.5", "TestLossWide")
	add("if (t > top) sum *= exp2_approx((top - t) * log2e);", "", "TestLossWide")
	add("z[e] == LOWEST ? 0.0f : exp2", "exp2", "TestLossRange")
	add("return (double)x;", "return 0;", "TestLossRange")
	add("if (c + e >= cols) z[e] = LOWEST", "if (c + e > cols) z[e] = LOWEST", "TestLossWide")
	add("a.losses[a.order[i]]", "a.losses[i]", "TestLossOrder")
	add("c = from + THREAD * 8;\n\t\tfloat z[8];\n\t\tif (c < a.cols) load_logits(z, row, c, a.cols);\n\t\tSYNC();",
		"c = from + THREAD * 8;\n\t\tfloat z[8];\n\t\tif (c < a.cols) load_logits(z, row, c, a.cols);", "TestLossWide")
	add("\tSYNC();\n\tfor (i32 i = first + THREAD; i < end; i += THREADS) {\n\t\ti32 label", "\tfor (i32 i = first + THREAD; i < end; i += THREADS) {\n\t\ti32 label", "TestLossWide")
	add("a.labels[j] == label ? a.counts[j] : 0", "i == j ? a.counts[j] : 0", "TestLossWide")
	add("(double)top - (double)z", "(double)(top - z)", "TestLossRange")
}
