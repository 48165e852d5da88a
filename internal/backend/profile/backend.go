package profile

import "github.com/biolora/biolora/internal/backend"

// Backend is another backend under a watch.
type Backend struct {
	backend.Backend
	watch *Watch
}

// On returns be with its operations timed by w. A device that computes on while its operations have returned, and has a
// method Wait, is waited for before and after each of them: they take a little longer all together than without w.
func On(be backend.Backend, w *Watch) *Backend {
	if d, ok := be.(interface{ Wait() }); ok {
		w.wait = d.Wait
	}
	return &Backend{be, w}
}

func (p *Backend) Embed(x backend.Buffer, e *backend.Embedding, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.watch.times.Rows += len(b.Tokens)
	p.Backend.Embed(x, e, b)
}

func (p *Backend) EmbedBackward(e *backend.Embedding, dx backend.Buffer, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Branch))
	p.Backend.EmbedBackward(e, dx, b)
}

func (p *Backend) RMSNorm(y, rstd, x backend.Buffer, g backend.Vector, eps float32) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.Backend.RMSNorm(y, rstd, x, g, eps)
}

func (p *Backend) RMSNormBackward(dx, x, rstd, dy, add backend.Buffer, g backend.Vector) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.Backend.RMSNormBackward(dx, x, rstd, dy, add, g)
}

func (p *Backend) Linear(y, h, x, add backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Forward))
	p.Backend.Linear(y, h, x, add, ls, b)
}

func (p *Backend) LinearBackward(dx, x, h, dy backend.Buffer, ls []*backend.Linear, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Backward))
	p.Backend.LinearBackward(dx, x, h, dy, ls, b)
}

func (p *Backend) GateUp(y, gu, h, x backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Forward))
	p.Backend.GateUp(y, gu, h, x, gate, up, b)
}

func (p *Backend) SwiGLU(y, gu backend.Buffer) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.Backend.SwiGLU(y, gu)
}

func (p *Backend) GateUpBackward(dx, x, gu, h, dy backend.Buffer, gate, up *backend.Linear, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Backward))
	p.Backend.GateUpBackward(dx, x, gu, h, dy, gate, up, b)
}

func (p *Backend) Attention(y, lse, qkv backend.Buffer, a *backend.Attention, b *backend.Batch, c backend.Cache) {
	defer p.watch.Leave(p.watch.Enter(Attention))
	p.Backend.Attention(y, lse, qkv, a, b, c)
}

func (p *Backend) AttentionBackward(dqkv, qkv, lse, dy backend.Buffer, a *backend.Attention, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Attention))
	p.Backend.AttentionBackward(dqkv, qkv, lse, dy, a, b)
}

func (p *Backend) Gather(y, x backend.Buffer, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.Backend.Gather(y, x, b)
}

func (p *Backend) GatherBackward(dx, dy backend.Buffer, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Elementwise))
	p.Backend.GatherBackward(dx, dy, b)
}

func (p *Backend) CrossEntropy(sum backend.Sum, dx, x backend.Buffer, head *backend.Linear, b *backend.Batch) {
	defer p.watch.Leave(p.watch.Enter(Loss))
	p.watch.times.Selected += len(b.Rows)
	p.Backend.CrossEntropy(sum, dx, x, head, b)
}

func (p *Backend) ZeroGrad(ps []backend.Param) {
	defer p.watch.Leave(p.watch.Enter(Optimizer))
	p.Backend.ZeroGrad(ps)
}

func (p *Backend) ScaleGrad(ps []backend.Param, f float64) {
	defer p.watch.Leave(p.watch.Enter(Optimizer))
	p.Backend.ScaleGrad(ps, f)
}

func (p *Backend) SumSquares(ps []backend.Param) float64 {
	defer p.watch.Leave(p.watch.Enter(Optimizer))
	return p.Backend.SumSquares(ps)
}

func (p *Backend) AdamW(ps []backend.Param, o backend.AdamW) {
	defer p.watch.Leave(p.watch.Enter(Optimizer))
	p.Backend.AdamW(ps, o)
}
