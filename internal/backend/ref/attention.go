package ref

import (
	"math"

	"github.com/biolora/biolora/internal/backend"
)

// cache keeps rotated keys and values, a row [KVHeads*HeadDim keys | values] for each position of a slot.
type cache struct {
	cols  int
	slots map[int][]float64
}

func (*Backend) NewCache(a *backend.Attention) backend.Cache {
	return &cache{cols: 2 * a.KVHeads * a.HeadDim, slots: map[int][]float64{}}
}

func (c *cache) Truncate(slot, n int) { c.slots[slot] = c.slots[slot][:n*c.cols] }

func (c *cache) Copy(dst, src, n int) {
	c.slots[dst] = append([]float64(nil), c.slots[src][:n*c.cols]...)
}

func (c *cache) Bytes() int64 {
	var n int64
	for _, s := range c.slots {
		n += int64(8 * cap(s))
	}
	return n
}

// rotate turns the pairs (i, i+len/2) of a head; sign -1 turns back.
func rotate(x []float64, cos, sin []float32, sign float64) {
	half := len(x) / 2
	for i := range half {
		c, s := float64(cos[i]), sign*float64(sin[i])
		a, b := x[i], x[i+half]
		x[i], x[i+half] = a*c-b*s, b*c+a*s
	}
}

// key is a position that a query may see: its rotated key and value, and where their gradients go (-1: cached).
type key struct {
	k, v     []float64 // [KVHeads*HeadDim]
	position int32
	row      int
}

// rotated returns a copy of qkv with queries and keys rotated.
func rotated(qkv *Matrix, a *backend.Attention, b *backend.Batch) *Matrix {
	r := &Matrix{rows: qkv.rows, cols: qkv.cols, V: append([]float64(nil), qkv.V...)}
	half := a.HeadDim / 2
	for t := range r.rows {
		for h := range a.Heads + a.KVHeads {
			rotate(r.row(t)[h*a.HeadDim:(h+1)*a.HeadDim], b.Cos[t*half:], b.Sin[t*half:], 1)
		}
	}
	return r
}

// keys lists what the rows of segment s may see, in order of position, the chain of prefixes first.
func keys(s int, r *Matrix, a *backend.Attention, b *backend.Batch, c *cache) (ks []key) {
	seg := b.Segments[s]
	if seg.Prefix >= 0 {
		ks = keys(int(seg.Prefix), r, a, b, c)
	}
	nq, nk := a.Heads*a.HeadDim, a.KVHeads*a.HeadDim
	if seg.Past > 0 {
		first := int32(len(ks))
		rows := c.slots[int(seg.Slot)]
		for i := range int(seg.Past) {
			row := rows[i*c.cols : (i+1)*c.cols]
			ks = append(ks, key{row[:nk], row[nk:], first + int32(i), -1})
		}
	}
	for t := int(seg.Start); t < int(seg.Start+seg.Len); t++ {
		row := r.row(t)
		ks = append(ks, key{row[nq : nq+nk], row[nq+nk:], b.Positions[t], t})
	}
	return ks
}

// visible tells whether the query at position p sees the key.
func (k *key) visible(p int32, window int) bool {
	return k.position <= p && (window == 0 || int(k.position) > int(p)-window)
}

// scores fills p with the softmax of the query's scores over ks (0 where invisible) and returns log-sum-exp.
func scores(p, q []float64, ks []key, kv int, position int32, a *backend.Attention) float64 {
	top := math.Inf(-1)
	for i := range ks {
		p[i] = math.Inf(-1)
		if ks[i].visible(position, a.Window) {
			p[i] = float64(a.Scale) * dot(q, ks[i].k[kv*a.HeadDim:(kv+1)*a.HeadDim])
			top = math.Max(top, p[i])
		}
	}
	var s float64
	for i := range p {
		s += math.Exp(p[i] - top)
	}
	lse := top + math.Log(s)
	for i := range p {
		p[i] = math.Exp(p[i] - lse)
	}
	return lse
}

func (*Backend) Attention(y, lse, qkv backend.Buffer, a *backend.Attention, b *backend.Batch, c backend.Cache) {
	out, stat, in := mat(y), mat(lse), mat(qkv)
	out.Resize(in.rows)
	stat.Resize(in.rows)
	clear(out.V)
	store, _ := c.(*cache)
	r := rotated(in, a, b)
	hd, group := a.HeadDim, a.Heads/a.KVHeads
	for s, seg := range b.Segments {
		ks := keys(s, r, a, b, store)
		p := make([]float64, len(ks))
		for t := int(seg.Start); t < int(seg.Start+seg.Len); t++ {
			for h := range a.Heads {
				kv := h / group
				stat.row(t)[h] = scores(p, r.row(t)[h*hd:(h+1)*hd], ks, kv, b.Positions[t], a)
				for i := range ks {
					axpy(out.row(t)[h*hd:(h+1)*hd], p[i], ks[i].v[kv*hd:(kv+1)*hd])
				}
			}
		}
		if store != nil && seg.Slot >= 0 {
			rows := store.slots[int(seg.Slot)][:int(seg.Past)*store.cols]
			for t := int(seg.Start); t < int(seg.Start+seg.Len); t++ {
				rows = append(rows, r.row(t)[a.Heads*hd:]...)
			}
			store.slots[int(seg.Slot)] = rows
		}
	}
}

func (*Backend) AttentionBackward(dqkv, qkv, _, dy backend.Buffer, a *backend.Attention, b *backend.Batch) {
	in, dout := mat(qkv), mat(dy)
	d := mat(dqkv)
	d.Resize(in.rows)
	clear(d.V)
	r := rotated(in, a, b)
	hd, group := a.HeadDim, a.Heads/a.KVHeads
	nq, nk := a.Heads*hd, a.KVHeads*hd
	for s, seg := range b.Segments {
		ks := keys(s, r, a, b, nil)
		p, dp := make([]float64, len(ks)), make([]float64, len(ks))
		for t := int(seg.Start); t < int(seg.Start+seg.Len); t++ {
			for h := range a.Heads {
				kv := h / group
				q, g := r.row(t)[h*hd:(h+1)*hd], dout.row(t)[h*hd:(h+1)*hd]
				scores(p, q, ks, kv, b.Positions[t], a)
				var delta float64 // sum over keys of p * dp
				for i := range ks {
					dp[i] = dot(g, ks[i].v[kv*hd:(kv+1)*hd])
					delta += p[i] * dp[i]
				}
				for i := range ks {
					dk := d.row(ks[i].row)[nq+kv*hd : nq+(kv+1)*hd]
					dv := d.row(ks[i].row)[nq+nk+kv*hd : nq+nk+(kv+1)*hd]
					ds := float64(a.Scale) * p[i] * (dp[i] - delta)
					axpy(dv, p[i], g)
					axpy(dk, ds, q)
					axpy(d.row(t)[h*hd:(h+1)*hd], ds, ks[i].k[kv*hd:(kv+1)*hd])
				}
			}
		}
	}
	half := hd / 2
	for t := range d.rows {
		for h := range a.Heads + a.KVHeads {
			rotate(d.row(t)[h*hd:(h+1)*hd], b.Cos[t*half:], b.Sin[t*half:], -1)
		}
	}
}
