package model

import "github.com/biolora/biolora/internal/backend"

// Work is the floating-point operations of the products with the decoder's matrices that a training pass needs over so
// many rows, of which so many have a target: two for each multiplication and addition, forward and as far backward as
// something is trained. What is computed again, the low-rank branches and attention are not in it.
func (m *Model) Work(rows, selected int) (forward, backward float64) {
	below := m.embed.Train != nil // something is trained below
	product := func(rows int, ls ...*backend.Linear) {
		trains := false
		for _, l := range ls {
			flop := 2 * float64(rows) * float64(l.In) * float64(l.Out)
			forward += flop
			if below {
				backward += flop
			}
			trains = trains || l.Trains()
		}
		below = below || trains
	}
	for _, l := range m.layers {
		product(rows, l.QKV...)
		product(rows, l.O...)
		product(rows, l.Gate, l.Up)
		product(rows, l.Down...)
	}
	product(selected, m.head)
	return forward, backward
}

// Weights is the bytes of the matrices that a pass over one row reads, as they are computed with: all but the embedding.
func (m *Model) Weights() (bytes int64) {
	for _, s := range m.cfg.Stored(m.ckpt) {
		if t, ok := m.ckpt.Tensor(s.Name); ok && len(s.Shape) == 2 && (s.Name != embedTensor || m.cfg.TieWordEmbeddings) {
			bytes += int64(len(t.Data) + len(t.Codes))
		}
	}
	return bytes
}
