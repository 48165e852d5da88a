package model

import "fmt"

// CheckFinite names the first tensor that holds a NaN or an infinity: of the checkpoint, then of what is trained
// (values, then gradients). nil: there is none, and a loss that is not finite comes from the arithmetic.
func (m *Model) CheckFinite() error {
	for t := range m.ckpt.All() {
		if !t.DType.Float() {
			continue
		}
		if err := t.CheckFinite(); err != nil {
			return err
		}
	}
	for _, p := range m.params.list {
		if v, i := firstNonFinite(p.Values()); i >= 0 {
			return fmt.Errorf("%s: element %d is %v", p.Name(), i, v)
		}
	}
	for _, p := range m.params.list {
		g := make([]float32, p.Len())
		p.ReadGrad(g)
		if v, i := firstNonFinite(g); i >= 0 {
			return fmt.Errorf("gradient of %s: element %d is %v", p.Name(), i, v)
		}
	}
	return nil
}

func firstNonFinite(vs []float32) (v float32, at int) {
	for i, x := range vs {
		if x-x != 0 { // NaN, and infinity minus itself
			return x, i
		}
	}
	return 0, -1
}
