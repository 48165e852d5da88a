package model

import (
	"fmt"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/exec"
	"github.com/biolora/biolora/internal/memory"
)

// Room is what there is for the keys and values of prompts and answers.
type Room struct {
	Together int    // prompts that can advance together
	Each     int64  // bytes that one takes at most, with its longest answer
	Free     int64  // bytes for all
	From     string // what says so; empty: nothing does
}

// Fit sets o.Together and o.Positions to what the memory has room for: Options.MemoryLimit or, without it, what is free,
// less what a pass takes and, where there is room for both, the pages of the mapped weights. It fails where not even one
// prompt has room. Where the system does not say what is free, nothing is bounded.
func (m *Model) Fit(prompts [][]int32, o *GenerateOptions) (r Room, err error) {
	defer m.noted(&err)
	if err := m.checkPrompts(prompts, *o); err != nil {
		return r, err
	}
	g, err := m.newGenerator(prompts, *o, nil)
	if err != nil {
		return r, err
	}
	r.Together, r.Each = g.o.Together, int64(g.need())*m.positionBytes()
	longest := 0
	for _, p := range prompts {
		longest = max(longest, len(p))
	}
	for {
		var known bool
		if r.Free, r.From, known, err = m.roomFor(r.Together*max(1, o.Beams), longest+o.MaxNewTokens); err != nil || !known {
			return r, err
		}
		fits := int(max(0, r.Free) / max(1, r.Each))
		if fits >= r.Together {
			o.Together, o.Positions = r.Together, int(r.Free/m.positionBytes())
			return r, nil
		}
		if r.Together == 1 {
			return r, fmt.Errorf("the keys and values of a prompt of up to %d tokens and its answer of up to %d take %s, and there is room for %s (%s)",
				longest, o.MaxNewTokens, memory.Format(r.Each), memory.Format(max(0, r.Free)), r.From)
		}
		r.Together = max(1, fits) // and passes take less then
	}
}

// positionBytes is what keys and values of a position take in all layers.
func (m *Model) positionBytes() int64 {
	a := &m.dims.Attention
	if m.card != nil {
		return m.card.CacheBytes(a) * int64(len(m.layers))
	}
	return 4 * 2 * int64(a.KVHeads) * int64(a.HeadDim) * int64(len(m.layers))
}

// roomFor is what is left for keys and values beside passes that choose so many tokens and whose rows see so many keys.
func (m *Model) roomFor(tokens, keys int) (bytes int64, from string, known bool, err error) {
	passes, err := m.passBytes(tokens, keys)
	if err != nil {
		return 0, "", false, err
	}
	if m.card != nil {
		bytes, from, err = m.roomOnCard(passes)
		return bytes, from, true, err
	}
	if m.opts.MemoryLimit > 0 {
		return m.opts.MemoryLimit - memory.Held() - passes, "of the memory limit of " + memory.Format(m.opts.MemoryLimit), true, nil
	}
	room, known := memory.Available()
	if !known {
		return 0, "", false, nil
	}
	bytes, from = room.Bytes-room.Bytes/spare-passes, room.From
	if u, known := memory.Now(); known { // what the process has and does not hold, such as earlier keys and values
		bytes += max(0, u.Own-memory.Held())
	}
	if bytes-m.mapped > bytes/2 {
		bytes -= m.mapped
		from += ", less the weights' pages"
	}
	return bytes, from, true, nil
}

// passBytes is what a pass takes beside what is there now.
func (m *Model) passBytes(tokens, keys int) (int64, error) {
	if m.generating == nil {
		var err error
		if m.generating, err = m.newGraph(logitsGraph, 0, 0); err != nil {
			return 0, err
		}
	}
	n := exec.Counts{All: max(prefillRows, keys) + tokens, Selected: max(tokens, maxLogitRows)}
	need := backend.Need{Forward: n.All, Selected: n.Selected, Keys: keys, Head: m.head, Attention: &m.dims.Attention}
	for _, l := range m.layers {
		need.Linears = append(need.Linears, l.Linears()...)
	}
	bytes := max(0, m.outer.BytesFor(n)-m.outer.Bytes()) + max(0, m.env.Blocks.BytesFor(n)-m.env.Blocks.Bytes())
	bytes += max(0, m.be.ScratchBytes(need)-m.be.ScratchHeld())
	bytes += int64(n.All) * (m.rotaryRow() + rowBytes)
	return bytes + 2*4*int64(n.Selected)*int64(m.cfg.VocabSize), nil // in the device, and copied out of it
}
