package model

import (
	"context"
	"slices"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/stream"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model/weights"
)

// OpenOn is Open on a given backend, for tests.
func OpenOn(dir string, o Options, be backend.Backend) (*Model, error) {
	ckpt, err := weights.Open(dir)
	if err != nil {
		return nil, err
	}
	m := &Model{dir: ckpt.Path(), opts: o, ckpt: ckpt, be: be}
	return m, m.load(context.Background(), numeric.F32)
}

// HeldActivations is the memory that Memory.Activations plans for.
func (m *Model) HeldActivations() int64 {
	n := m.outer.Bytes() + m.env.Blocks.Bytes()
	for _, f := range m.training.frames {
		n += f.Bytes()
	}
	if m.eval != nil && m.eval.apart {
		for _, f := range m.eval.frames {
			n += f.Bytes()
		}
	}
	for _, b := range m.training.blocks {
		n += b.Bytes()
	}
	return n
}

// HeldScratch is the memory that Memory.Scratch plans for.
func (m *Model) HeldScratch() int64 {
	tables := len(m.rope.cos) + len(m.rope.sin)
	for _, p := range m.preps {
		tables += len(p.batch.Cos) + len(p.batch.Sin)
	}
	return m.be.ScratchHeld() + 4*int64(tables)
}

// SetOptions changes what Plan goes by.
func (m *Model) SetOptions(o Options) { m.opts = o }

// PlanWith is Plan with other options.
func (m *Model) PlanWith(o Options, l Load) (Memory, error) {
	m.opts = o
	return m.Plan(l)
}

// Parts are the weights that can be streamed.
func (m *Model) Parts() []stream.Part { return m.parts() }

// SetPace says how fast machine and disk are, as if measured: s for each row in any part of a step, disk in bytes a
// second.
func (m *Model) SetPace(s, disk float64) {
	m.pace = &pace{Speed{Forward: s, Again: s, Backward: s, Head: s}, disk}
}

// PositionBytes is what Fit counts a position of keys and values for, CacheBytes what all take that there are.
func (m *Model) PositionBytes() int64 { return m.positionBytes() }

func (m *Model) CacheBytes() (n int64) {
	for _, l := range m.layers {
		n += l.Cache.Bytes()
	}
	return n
}

// OfZeros is a model of that config.json whose weights are zeros that take no memory, for plans of large models. base is
// what its linears are in.
func OfZeros(config []byte, base quant.Format, o Options) (*Model, error) {
	text, err := strictjson.ParseObject(config)
	if err != nil {
		return nil, err
	}
	c, _, err := parseConfig(text, "zeros")
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 2*c.VocabSize*c.HiddenSize) // all matrices are this memory, which nobody reads
	quantised := c.Quantised()
	var tensors []weights.Tensor
	for _, s := range c.Stored(nil) {
		t := weights.Tensor{Name: s.Name, DType: numeric.BF16, Shape: s.Shape}
		t.Data = zeros[:t.Len()*2]
		if base != quant.None && slices.Contains(quantised, s.Name) {
			n, err := base.Size(s.Shape[0], s.Shape[1])
			if err != nil {
				return nil, err
			}
			t.Quant, t.Codes = base, zeros[:n]
		}
		tensors = append(tensors, t)
	}
	ckpt, err := weights.InMemory("zeros", text, tensors)
	if err != nil {
		return nil, err
	}
	o.Base = base.String()
	return onDevice(context.Background(), ckpt, o)
}
