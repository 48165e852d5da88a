package model

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
)

// Linear is one of the decoder's linears: a frozen matrix [Out, In], and perhaps a low-rank branch that is trained:
// y = x Wᵀ + bias + scale * drop(x) Aᵀ Bᵀ.
type Linear struct {
	m    *Model
	l    *backend.Linear
	a, b *Param
}

// Name is the module's full name in the checkpoint, such as "model.layers.0.self_attn.q_proj".
func (l *Linear) Name() string { return l.l.Name }

// In is the number of columns of the matrix.
func (l *Linear) In() int { return l.l.In }

// Out is the number of rows of the matrix.
func (l *Linear) Out() int { return l.l.Out }

// SetBranch gives the linear a low-rank branch of rank r: a [r, In] and b [Out, r] row-major, both trained from
// now on. scale multiplies their product; dropout is the probability with which an input of a is dropped in
// training.
func (l *Linear) SetBranch(a, b []float32, r int, scale, dropout float32) (err error) {
	defer l.m.caught(&err)
	switch {
	case r < 1:
		return fmt.Errorf("%s: rank %d", l.Name(), r)
	case len(a) != r*l.In():
		return fmt.Errorf("%s: lora_A has %d elements, want %d x %d", l.Name(), len(a), r, l.In())
	case len(b) != l.Out()*r:
		return fmt.Errorf("%s: lora_B has %d elements, want %d x %d", l.Name(), len(b), l.Out(), r)
	case !(dropout >= 0 && dropout < 1):
		return fmt.Errorf("%s: dropout %v is not in [0, 1)", l.Name(), dropout)
	case l.a != nil:
		return fmt.Errorf("%s has a low-rank branch already", l.Name())
	}
	be := l.m.be
	l.l.A, l.l.B = be.NewParam(r, l.In()), be.NewParam(l.Out(), r)
	l.l.A.Write(a)
	l.l.B.Write(b)
	l.l.Scale, l.l.Dropout = scale, dropout
	l.a = l.m.params.add(l.Name()+".lora_A.weight", l.l.A)
	l.b = l.m.params.add(l.Name()+".lora_B.weight", l.l.B)
	l.m.dropGraphs()
	return nil
}

// Branch returns A and B, nil without a branch.
func (l *Linear) Branch() (a, b *Param) { return l.a, l.b }

// BranchScale is the factor of the branch.
func (l *Linear) BranchScale() float32 { return l.l.Scale }

// Freeze takes off all that is trained, branches and whole matrices: the model is the checkpoint's again. What Branch,
// TrainFull and TieTraining returned is of no use then.
func (m *Model) Freeze() {
	for _, l := range m.linears {
		l.a, l.b = nil, nil
		l.l.A, l.l.B, l.l.Scale, l.l.Dropout = nil, nil, 0, 0
	}
	m.embed.Train, m.head.Train = nil, nil
	m.params.list, m.params.raw = nil, nil
	m.params.forgetCopies()
	m.dropGraphs()
}
