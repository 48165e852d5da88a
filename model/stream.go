package model

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/stream"
)

// Streaming is how weights that have no room in memory pass through it: those of each layer are read from the disk
// before the layer works, and several micro-batches pass through a layer while its weights are there.
type Streaming struct {
	Bytes  int64 // of weights that a pass through the model uses
	Room   int64 // what may be in memory of them
	Layers int
	Stays  int // of the layers: those that are still in memory when the next pass turns round and needs them

	Batches int   // micro-batches that pass through the layers together in training
	Evals   int   // and in an evaluation
	Passes  int   // of a window, forward and backward
	Read    int64 // bytes that a window reads when others have gone before
}

// StreamStats is what was read so far: see stream.Stats.
type StreamStats = stream.Stats

// Streamed tells what was read of weights that are streamed since Reserve; false where none are.
func (m *Model) Streamed() (StreamStats, bool) {
	if m.stream == nil {
		return StreamStats{}, false
	}
	return m.stream.Stats(), true
}

// CheckStream says what is wrong with an Options.Stream.
func CheckStream(text string) error {
	if !slices.Contains([]string{"", "auto", "always", "never"}, text) {
		return fmt.Errorf("streaming %q is none of auto, always, never", text)
	}
	return nil
}

// parts are the weights that can be streamed: those of each layer's linears and, pinned behind them, those of the
// embeddings and the head that are not trained in full.
func (m *Model) parts() (parts []stream.Part) {
	mapped := func(ranges [][]byte, pinned bool) {
		ranges = slices.DeleteFunc(slices.Clone(ranges), func(r []byte) bool { return !mmap.Mapped(r) })
		parts = append(parts, stream.Part{Ranges: ranges, Pinned: pinned})
	}
	for _, ranges := range m.layerBytes {
		mapped(ranges, false)
	}
	tables := m.tables // of the embeddings; and of the head, where it has its own
	if m.embed.Train != nil && (m.head.Train != nil || !m.cfg.TieWordEmbeddings) {
		tables = tables[1:]
	}
	if m.head.Train != nil && !m.cfg.TieWordEmbeddings {
		tables = tables[:len(tables)-1]
	}
	mapped(tables, true)
	return parts
}

// order is that in which a pass uses the parts: the tables, the layers upwards and, with a backward pass, down again to
// the lowest that has one.
func (m *Model) order(backward bool) (order []int) {
	n := len(m.layers)
	order = append(order, n)
	for i := range n {
		order = append(order, i)
	}
	for i := n - 2; backward && i >= m.lowest(); i-- {
		order = append(order, i)
	}
	return order
}

// sizes are the bytes of parts, and which of them are pinned.
func sizes(parts []stream.Part) (bytes []int64, pinned []bool, total int64) {
	for i := range parts {
		bytes, pinned = append(bytes, parts[i].Size()), append(pinned, parts[i].Pinned)
		total += bytes[i]
	}
	return bytes, pinned, total
}

// streams decides whether weights are streamed: they are where they have no room beside a run that takes r.
func (m *Model) streams(r *Memory) bool {
	_, _, total := sizes(m.parts())
	if total == 0 || m.opts.Stream == "never" || m.card != nil {
		return false
	}
	limit, _, ok := m.free(r)
	return m.opts.Stream == "always" || ok && r.Peak+total > limit
}

// pace is how fast the machine computes and its disk is.
type pace struct {
	speed Speed
	disk  float64 // bytes a second
}

// measurePace calibrates on the micro-batches of l, and reads the measured layer from the disk.
func (m *Model) measurePace(l Load) (*pace, error) {
	ctx := context.Background()
	part := m.parts()[m.measuredLayer().Index]
	for _, r := range part.Ranges {
		mmap.Drop(r)
	}
	s := stream.New([]stream.Part{part}, 0)
	s.Begin([]int{0})
	err := s.Use(ctx, 0)
	read := s.Stats()
	s.Close()
	if err != nil {
		return nil, err
	}
	speed, err := m.Calibrate(ctx, l.Rows, l.Keys)
	return &pace{speed, float64(read.Read) / max(read.Reading.Seconds(), 1e-9)}, err
}

// hidden is the share of its time that reading takes from computing, or computing from reading, while the other goes on:
// both need processors and memory.
const hidden = 0.1

// seconds is how long so many micro-batches of a window take, computing and reading at the same time.
func (p *pace) seconds(l Load, batches int, read int64, r Memory, layers int) float64 {
	compute, reading := float64(batches)*p.speed.Seconds(r, layers, float64(l.Rows), float64(l.Selected)), float64(read)/p.disk
	return max(compute, reading) + hidden*min(compute, reading)
}

// planStream is Plan for weights that are streamed, where a run that keeps nothing for its backward pass takes least.
// Memory is for three things: for weights, of which less is read then; for micro-batches that pass through the layers
// together, so that weights are read for all of them at once; and with "auto" for what layers keep, so that less is
// computed again. What makes a window shortest is chosen, by the pace of the machine; where that is not known, what
// reads least, and nothing is kept.
func (m *Model) planStream(l Load, p policy, least Memory) (Memory, error) {
	base, err := m.measure(l, shape{0, 1, 1}, least.Program)
	if err != nil {
		return base, err
	}
	limit := least.Limit
	if room, _, ok := m.free(&least); ok {
		limit = min(limit, room)
	}
	bytes, pinned, total := sizes(m.parts())
	all := Streaming{Bytes: total, Layers: len(m.layers), Evals: 1}
	layer, tables := slices.Max(bytes[:all.Layers]), bytes[all.Layers]
	if l.EvalRows > 0 {
		all.Evals = int(max(1, min(int64(l.EvalBatches), layer/m.evalBytes(l))))
	}
	window, more, order := max(1, l.Batches), m.batchBytes(l)+m.rowsBytes(l), m.order(true)
	from := min(p.kept, base.Layers)
	to := from
	if p.auto && m.pace != nil {
		to = base.Layers
	}
	var s Streaming
	var kept int
	best := math.Inf(1)
	for keep := from; keep <= to; keep++ {
		for n := 1; n <= window; n++ {
			peak := base.Peak + int64(n-1)*more + int64(n)*int64(keep)*base.Each
			if peak > least.Limit && s.Batches > 0 {
				break
			}
			c := all
			c.Batches, c.Passes = n, (window+n-1)/n
			c.Room = max(tables+2*layer, limit-peak-peak/spare-margin) // a layer is in use, one is being read
			c.Read = int64(c.Passes) * stream.Reads(bytes, pinned, order, c.Room)
			cost := float64(c.Read)
			if m.pace != nil {
				cost = m.pace.seconds(l, window, c.Read, Memory{Layers: base.Layers, Kept: keep}, all.Layers)
			}
			if s.Batches == 0 || cost < clearly*best {
				s, kept, best = c, keep, cost
			}
		}
	}
	s.Stays = int(min(int64(s.Layers), (s.Room-tables)/max(1, layer)))
	r, err := m.measure(l, shape{kept, s.Batches, s.Evals}, least.Program)
	r.limitedAs(&least)
	r.Stream = &s
	return r, err
}

// clearly is the factor from which on a plan is the better one: what is saved must be worth its memory.
const clearly = 0.99

// margin is what is left free beside a share: pages of which a part uses some bytes only, and what the kernel reads
// ahead of its own accord.
const margin = 64 << 20

// startStream begins to read weights, of which so many bytes may be in memory.
func (m *Model) startStream(room int64) {
	m.stream = stream.New(m.parts(), room)
	m.env.Weights = func(layer int) error { return m.stream.Use(m.ctx, layer) }
}

// stopStream ends the reading.
func (m *Model) stopStream() {
	if m.stream != nil {
		m.stream.Close()
		m.stream, m.env.Weights = nil, nil
	}
}

// pass begins a pass through the model that uses the parts of weights in this order, the tables first.
func (m *Model) pass(ctx context.Context, order []int) error {
	m.ctx, m.env.Turn = ctx, 0
	if m.stream == nil {
		return nil
	}
	m.stream.Begin(order)
	return m.stream.Use(ctx, len(m.layers))
}
