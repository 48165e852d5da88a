package exec

import (
	"fmt"

	"gorgonia.org/gorgonia"
)

// Backprop is reverse mode over the operations' SymDiff: it adds to the graph of y the nodes that compute the
// gradients of the inputs wrt, and those that leave the gradients of what the operations train. dy is the
// gradient of y; nil where y is a loss, whose operation knows that its own is 1.
//
// It differs from gorgonia.Backpropagate in two ways. It goes through operations that train something though no
// input wants a gradient. And where gradients meet it does not add in place but lets the operation that comes
// second add (Adder).
func Backprop(y, dy *gorgonia.Node, wrt ...*gorgonia.Node) (gorgonia.Nodes, error) {
	g := y.Graph()
	sorted, err := gorgonia.Sort(g) // outputs first
	if err != nil {
		return nil, err
	}
	need := needs(g, sorted, wrt)
	grads := map[int64]*gorgonia.Node{y.ID(): dy}
	for _, n := range sorted {
		grad, reached := grads[n.ID()]
		if !reached || !need[n.ID()] || n.Op() == nil {
			continue
		}
		if err := backThrough(g, n, grad, grads, need); err != nil {
			return nil, fmt.Errorf("differentiate %v: %w", n.Op(), err)
		}
	}
	out := make(gorgonia.Nodes, len(wrt))
	for i, n := range wrt {
		if out[i] = grads[n.ID()]; out[i] == nil {
			return nil, fmt.Errorf("%v gets no gradient", n)
		}
	}
	return out, nil
}

// needs marks the nodes from which a gradient flows on, or that train something themselves.
func needs(g *gorgonia.ExprGraph, sorted, wrt gorgonia.Nodes) map[int64]bool {
	need := map[int64]bool{}
	for _, n := range wrt {
		need[n.ID()] = true
	}
	for i := len(sorted) - 1; i >= 0; i-- {
		n := sorted[i]
		if t, ok := n.Op().(Trainer); ok && t.Trains() {
			need[n.ID()] = true
		}
		for _, c := range children(g, n) {
			if need[c.ID()] {
				need[n.ID()] = true
			}
		}
	}
	return need
}

func backThrough(g *gorgonia.ExprGraph, n, grad *gorgonia.Node, grads map[int64]*gorgonia.Node, need map[int64]bool) error {
	op, ok := n.Op().(gorgonia.SDOp)
	if !ok {
		return fmt.Errorf("it has no derivative")
	}
	in := children(g, n)
	if a, ok := op.(Adder); ok && len(in) == 1 && grads[in[0].ID()] != nil {
		sum, err := a.SymDiffAdd(in, n, grad, grads[in[0].ID()])
		grads[in[0].ID()] = sum
		return err
	}
	ds, err := op.SymDiff(in, n, grad)
	if err != nil {
		return err
	}
	wrt := op.DiffWRT(len(in))
	for i, c := range in {
		if !wrt[i] || !need[c.ID()] {
			continue
		}
		if grads[c.ID()] != nil {
			return fmt.Errorf("a second gradient of %v cannot be added", c)
		}
		grads[c.ID()] = ds[i]
	}
	return nil
}

func children(g *gorgonia.ExprGraph, n *gorgonia.Node) (r gorgonia.Nodes) {
	for it := g.From(n.ID()); it.Next(); {
		r = append(r, it.Node().(*gorgonia.Node))
	}
	return r
}
