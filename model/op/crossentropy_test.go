package op

import (
	"fmt"
	"math"
	"testing"

	"gorgonia.org/gorgonia"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/ref"
	"github.com/biolora/biolora/internal/exec"
)

func TestCrossEntropy(t *testing.T) {
	for _, kind := range []string{"frozen", "lora", "full"} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(7)
			b := w.batch(2, 6)
			b.Rows = []int32{0, 2, 5}
			b.Targets = []backend.Target{{Row: 0, Label: 3, Count: 1}, {Row: 2, Label: 1, Count: 2}, {Row: 2, Label: 4, Count: 1}, {Row: 1, Label: 0, Count: 1}}
			w.env.Batch = b
			head := w.linear(4, 5, 0, 0)
			switch kind {
			case "lora":
				head = w.linear(4, 5, 2, 0)
			case "full":
				head.Train = w.param(5, 4)
			}
			x := w.value(backend.Activation, 3, 4)
			g := gorgonia.NewGraph()
			xn := exec.Input(g, "x", 4)
			loss, err := apply(NewCrossEntropy(w.env, 4, true, head), xn)
			if err != nil {
				t.Fatal(err)
			}
			grads, err := exec.Backprop(loss, nil, xn)
			if err != nil {
				t.Fatal(err)
			}
			vm, err := exec.Compile(w.be, g, exec.Plan{Grads: grads, Split: loss})
			if err != nil {
				t.Fatal(err)
			}
			if err := gorgonia.Let(xn, x); err != nil {
				t.Fatal(err)
			}
			run := func() float64 {
				for _, p := range params(head) {
					clear(p.(*ref.Param).Grad)
				}
				w.env.Sum.Zero()
				if err := vm.RunAll(); err != nil {
					t.Fatal(err)
				}
				return w.env.Sum.Read()
			}
			run()
			check := func(name string, x, grad []float64) {
				grad = append([]float64(nil), grad...)
				for i := range x {
					old := x[i]
					x[i] = old + 1e-5
					up := run()
					x[i] = old - 1e-5
					want := (up - run()) / 2e-5
					x[i] = old
					if math.Abs(grad[i]-want) > 1e-8 {
						t.Errorf("%s[%d]: gradient %v, difference %v", name, i, grad[i], want)
					}
				}
			}
			check("x", v(x), v(vm.Value(grads[0])))
			for i, p := range params(head) {
				run()
				check(fmt.Sprint("parameter ", i), p.(*ref.Param).V, p.(*ref.Param).Grad)
			}
		})
	}
}
