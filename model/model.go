package model

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/backend/device"
	"github.com/biolora/biolora/internal/backend/profile"
	"github.com/biolora/biolora/internal/exec"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/stream"
	"github.com/biolora/biolora/model/op"
	"github.com/biolora/biolora/model/weights"
)

// Options say how a model is run. The zero value is the machine's best.
type Options struct {
	// Compute is the arithmetic of the large products: "f32"; "bf16" (operands rounded to bfloat16, sums in
	// float32); or "auto" (also ""): bf16 where the CPU is faster at it, and on a card.
	Compute string
	// Device is "cpu"; "cuda" or "cuda:N", a card of NVIDIA's (the N-th that its driver shows, from 0); or "auto" (also ""):
	// cuda where there is a card that can be used, and otherwise the CPU. See Model.Note.
	Device string
	// Threads is the number of threads; 0: one for each CPU. Auto is the CPU where it is given, and a card refuses it; so
	// with CPUFeatures, and with Stream "always".
	Threads int
	// CPUFeatures forces the instruction set of the products: "amx", "avx512_bf16", "avx512f", "avx2", "neon", "go".
	// "" is the best there is.
	CPUFeatures string
	// Activations says how many layers keep what their backward pass reads: "all", "none" (they compute it again from
	// their input), "some:N" (the last N), or "auto" (also ""): as many as the memory has room for. It never changes a
	// result.
	Activations string
	// MemoryLimit is how much memory the process may take, in bytes, pages of mapped files apart; 0: what is free.
	// Where weights are streamed, their pages are counted too. On a card it is how much of the card's memory the model and
	// the run may take, weights included.
	MemoryLimit int64
	// Stream says whether weights are read from the disk ahead of their use and dropped after it, layer by layer:
	// "always", "never", or "auto" (also ""): where they have no room in what is free beside the rest of the run, so that
	// the system would read them again and again. It never changes a result. It applies from Reserve on; only on Linux
	// something is dropped. A card holds all weights.
	Stream string
	// Base is the format of the matrices of the layers' linears: "none" (also "": the checkpoint's), "nf4" or "int8",
	// to which they are quantised once, from whatever they are stored in (see package quant). Embeddings, head and norms
	// stay in the checkpoint's format, as in QLoRA.
	Base string
	// VerifyBase compares weights that were converted or quantised earlier with what the checkpoint gives now, all of
	// them. It takes as long as making them; without it they are told by samples.
	VerifyBase bool
	// CacheDir is where weights go that have to be converted before they can be computed with; "": see
	// weights.PrepareOptions.
	CacheDir string
	// Progress is told how many bytes of weights are converted or verified, of how many. It may be nil.
	Progress func(done, total int64)
	// Note is told by Open what is worth knowing about the device and its arithmetic, such as why it is not a card; mostly
	// nothing. It may be nil.
	Note func(text string)
	// Profile is told where the time of the model's operations goes. It may be nil; otherwise it belongs to this model.
	Profile *Profile
}

// Profile tells where the time of a model's operations goes. The zero value is ready; Take reads it.
type Profile = profile.Watch

// Model is an open checkpoint.
type Model struct {
	dir      string
	cfg      Config
	opts     Options
	base     quant.Format
	ckpt     *weights.Checkpoint
	be       backend.Backend
	device   device.Device // be without a profile; nil: a backend of a test's
	card     device.Card   // the same where it has a memory of its own; else nil
	note     string        // why it is not a card
	warnings []string

	env     *op.Env
	dims    op.Dims
	layers  []*op.Layer
	embed   *backend.Embedding
	head    *backend.Linear
	norm    backend.Vector
	rope    *Rope
	linears []*Linear
	params  *Params

	mapped         int64      // bytes of weights in mapped files
	layerBytes     [][][]byte // of each layer's matrices
	tables         [][]byte   // of the embeddings and, unless it is the same, the head
	stream         *stream.Stream
	pace           *pace // once it is measured
	outer          *exec.Arena
	training, eval *graph
	generating     *graph
	trainSum       backend.Sum
	evalSums       []backend.Sum // of each micro-batch whose loss is wanted
	preps          []*prepared   // of each micro-batch that passes through the layers together
	one            [1]*Batch
	ctx            context.Context // of the pass that is going on
	turn           func(i int) error
}

// Open is OpenContext without an end.
func Open(path string, o Options) (*Model, error) { return OpenContext(context.Background(), path, o) }

// OpenContext maps the checkpoint at path, a directory or a .gguf file, and checks that it has the tensors that its
// configuration asks for, all problems at once. It reads no matrix: a checkpoint of any size opens at once. Only one
// whose weights do not lie in its files as they are computed with is converted first, into a file that is found again
// the next time (see weights.Checkpoint.Prepare); the end of ctx ends that.
func OpenContext(ctx context.Context, path string, o Options) (*Model, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ckpt, err := weights.Open(path)
	if err != nil {
		return nil, err
	}
	return onDevice(ctx, ckpt, o)
}

// check says what is wrong with the options by themselves.
func (o *Options) check() error {
	_, policy := parsePolicy(o.Activations)
	_, base := ParseBase(o.Base)
	_, name := device.Parse(o.Device)
	err := errors.Join(name, policy, base, CheckStream(o.Stream))
	if o.MemoryLimit < 0 {
		err = errors.Join(err, fmt.Errorf("a memory limit of %d bytes", o.MemoryLimit))
	}
	return err
}

// onDevice makes a model of an open checkpoint, which belongs to it then, on what o asks for.
func onDevice(ctx context.Context, ckpt *weights.Checkpoint, o Options) (*Model, error) {
	d, why, err := device.Open(device.Options{Name: o.Device, Compute: o.Compute, Threads: o.Threads, Features: o.CPUFeatures,
		Streamed: o.Stream == "always", Profile: o.Profile})
	if err != nil {
		return nil, errors.Join(err, ckpt.Close())
	}
	blocks := numeric.F32 // as what it computes with blocks of fewer bits
	if d.Compute() == "bf16" {
		blocks = numeric.BF16
	}
	m := &Model{dir: ckpt.Path(), opts: o, ckpt: ckpt, be: d, device: d, note: why}
	m.card, _ = d.(device.Card)
	if note := m.Note(); note != "" && o.Note != nil {
		o.Note(note)
	}
	if o.Profile != nil {
		m.be = profile.On(d, o.Profile)
	}
	if err := m.load(ctx, blocks); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return m, nil
}

// load finds what the checkpoint is, and makes the decoder's parts, with blocks of fewer bits in that format. Where it
// fails it closes the checkpoint.
func (m *Model) load(ctx context.Context, blocks numeric.DType) error {
	d, err := Describe(m.ckpt)
	if err == nil {
		m.base, err = ParseBase(m.opts.Base)
	}
	if err == nil {
		m.cfg, m.warnings = d.Config, d.Warnings
		err = m.convert(ctx, blocks)
	}
	if err == nil {
		err = m.build()
	}
	if err != nil {
		return errors.Join(err, m.ckpt.Close())
	}
	return nil
}

// ParseBase is the format that an Options.Base names.
func ParseBase(name string) (quant.Format, error) {
	if name == "" || name == quant.None.String() {
		return quant.None, nil
	}
	f, err := quant.Parse(name)
	if err != nil {
		return quant.None, fmt.Errorf("base %q is none of none, nf4, int8", name)
	}
	return f, nil
}

// Quantised lists the tensors that a quantised base has in that format: the matrices of the layers' linears.
func (c *Config) Quantised() (names []string) {
	for i := range c.NumHiddenLayers {
		for _, l := range c.layerLinears(i) {
			names = append(names, l.Name+".weight")
		}
	}
	return names
}

// convert makes the weights usable in place, and counts those that lie in mapped files then.
func (m *Model) convert(ctx context.Context, blocks numeric.DType) error {
	o := weights.PrepareOptions{CacheDir: m.opts.CacheDir, DType: blocks, Progress: m.opts.Progress,
		Quant: m.base, Quantised: m.cfg.Quantised(), Verify: m.opts.VerifyBase}
	for _, s := range m.cfg.Stored(m.ckpt) {
		o.Names = append(o.Names, s.Name)
	}
	known := len(m.ckpt.Warnings())
	if err := m.ckpt.Prepare(ctx, o); err != nil {
		return err
	}
	m.warnings = append(m.warnings, m.ckpt.Warnings()[known:]...)
	for t := range m.ckpt.All() {
		m.mapped += int64(len(t.Data) + len(t.Codes))
	}
	m.mapped -= m.ckpt.Held()
	return nil
}

// build makes the decoder's parts from the checkpoint's tensors.
func (m *Model) build() (err error) {
	defer m.caught(&err)
	c := &m.cfg
	if m.rope, err = NewRope(m.cfg); err != nil {
		return err
	}
	m.dims = op.Dims{Hidden: c.HiddenSize, Intermediate: c.IntermediateSize, Eps: float32(c.RMSNormEps), Attention: backend.Attention{
		Heads: c.NumAttentionHeads, KVHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim,
		Scale: float32(1 / math.Sqrt(float64(c.HeadDim))), Window: c.SlidingWindow,
	}}
	m.env = &op.Env{Backend: m.be}
	m.dropGraphs()
	m.params = &Params{be: m.be, card: m.card}
	m.trainSum, m.turn = m.be.NewSum(), m.turnTo
	m.layerBytes = make([][][]byte, c.NumHiddenLayers)
	l := &loader{m: m}
	m.embed, m.head = l.embeddings()
	for i := range c.NumHiddenLayers {
		m.layers = append(m.layers, l.layer(i))
	}
	m.norm = l.vector("model.norm.weight", c.HiddenSize)
	if m.head != nil {
		m.linears = append(m.linears, &Linear{m: m, l: m.head})
	}
	return errors.Join(l.errs...)
}

// loader gives the decoder's parts their tensors, which Describe has checked, and gathers what is wrong.
type loader struct {
	m    *Model
	errs []error
}

// matrix loads a matrix, and adds its bytes to part.
func (l *loader) matrix(part *[][]byte, name string, rows, cols int) backend.Weight {
	t, _ := l.m.ckpt.Tensor(name)
	x := backend.Matrix{Name: name, DType: t.DType, Rows: rows, Cols: cols, Data: t.Data}
	if t.Quant != quant.None {
		x.DType, x.Quant, x.Data = numeric.Invalid, t.Quant, t.Codes
	}
	*part = append(*part, x.Data)
	w, err := l.m.be.NewWeight(x)
	if err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", t.File, err))
	}
	return w
}

func (l *loader) vector(name string, n int) backend.Vector {
	t, _ := l.m.ckpt.Tensor(name)
	v := make([]float32, n)
	if err := t.Elements(v, 0); err != nil {
		l.errs = append(l.errs, err)
	}
	return l.m.be.NewVector(v)
}

// linear loads a projection of layer i; site tells its dropout from others'.
func (l *loader) linear(i, site int, module string, in, out int, bias bool) *backend.Linear {
	name := fmt.Sprintf("model.layers.%d.%s", i, module)
	b := &backend.Linear{Name: name, In: in, Out: out, Weight: l.matrix(&l.m.layerBytes[i], name+".weight", out, in), Site: uint32(8*i + site)}
	if bias {
		b.Bias = l.vector(name+".bias", out)
	}
	l.m.linears = append(l.m.linears, &Linear{m: l.m, l: b})
	return b
}

func (l *loader) layer(i int) *op.Layer {
	c, at := &l.m.cfg, &l.m.dims.Attention
	d, q, kv := c.HiddenSize, at.OutCols(), at.KVHeads*at.HeadDim
	norm := func(name string) backend.Vector {
		return l.vector(fmt.Sprintf("model.layers.%d.%s.weight", i, name), d)
	}
	attn := func(site int, name string, in, out int) *backend.Linear {
		return l.linear(i, site, "self_attn."+name, in, out, c.AttentionBias)
	}
	mlp := func(site int, name string, in, out int) *backend.Linear {
		return l.linear(i, site, "mlp."+name, in, out, c.MLPBias)
	}
	return &op.Layer{
		Index:     i,
		InputNorm: norm("input_layernorm"),
		PostNorm:  norm("post_attention_layernorm"),
		QKV:       []*backend.Linear{attn(0, "q_proj", d, q), attn(1, "k_proj", d, kv), attn(2, "v_proj", d, kv)},
		O:         []*backend.Linear{attn(3, "o_proj", q, d)},
		Gate:      mlp(4, "gate_proj", d, c.IntermediateSize),
		Up:        mlp(5, "up_proj", d, c.IntermediateSize),
		Down:      []*backend.Linear{mlp(6, "down_proj", c.IntermediateSize, d)},
	}
}

const (
	embedTensor = "model.embed_tokens.weight"
	headTensor  = "lm_head.weight"
)

// embeddings loads the table and the head, which are one matrix in a tied model.
func (l *loader) embeddings() (*backend.Embedding, *backend.Linear) {
	c := &l.m.cfg
	w := l.matrix(&l.m.tables, c.Stored(l.m.ckpt)[0].Name, c.VocabSize, c.HiddenSize)
	h := w
	if !c.TieWordEmbeddings {
		h = l.matrix(&l.m.tables, headTensor, c.VocabSize, c.HiddenSize)
	}
	return &backend.Embedding{Vocab: c.VocabSize, Dim: c.HiddenSize, Weight: w, Padding: c.PadTokenID},
		&backend.Linear{Name: "lm_head", In: c.HiddenSize, Out: c.VocabSize, Weight: h, Site: uint32(8 * c.NumHiddenLayers)}
}

// Close unmaps the checkpoint; the model and what came from it must not be used any more.
func (m *Model) Close() (err error) {
	m.stopStream()
	defer func() { err = errors.Join(err, m.ckpt.Close()) }()
	defer m.caught(&err)
	return m.be.Close()
}

// Dir is what was opened: the directory of the checkpoint, or a .gguf file.
func (m *Model) Dir() string { return m.dir }

// Files are the paths of the files with weights.
func (m *Model) Files() []string { return m.ckpt.Files() }

// Caches are the files of converted and quantised weights that are in use. See Options.CacheDir.
func (m *Model) Caches() []string { return m.ckpt.Caches() }

// CachesVerified reports whether these were found and compared with all that they are made of: Options.VerifyBase.
func (m *Model) CachesVerified() bool { return m.ckpt.Verified() }

// Base is the format of the layers' linears: "none" (the checkpoint's), "nf4" or "int8".
func (m *Model) Base() string { return m.base.String() }

// Config is what config.json says.
func (m *Model) Config() Config { return m.cfg }

// Warnings tells what of config.json and the checkpoint is not understood and was passed over.
func (m *Model) Warnings() []string { return m.warnings }

// BackendName says what runs: device, instruction set, arithmetic, threads; and a quantised base's format.
func (m *Model) BackendName() string {
	if m.base == quant.None {
		return m.be.Name()
	}
	return m.be.Name() + ", base in " + m.Base()
}

// Compute is the arithmetic of the products: "f32" or "bf16".
func (m *Model) Compute() string {
	if m.device == nil {
		return "f64"
	}
	return m.device.Compute()
}

// Note says what is worth knowing about the device and its arithmetic; mostly nothing.
func (m *Model) Note() string {
	if m.device == nil || m.note != "" {
		return m.note
	}
	return m.device.Note()
}

// Parameters is the number of the checkpoint's elements that the decoder uses; a tied matrix counts once.
func (m *Model) Parameters() (n int64) {
	c := &m.cfg
	for _, l := range m.linears {
		n += int64(l.In()) * int64(l.Out())
		if l.l.Bias != nil {
			n += int64(l.Out())
		}
	}
	n += int64(c.HiddenSize) * int64(2*c.NumHiddenLayers+1)
	if !c.TieWordEmbeddings {
		n += int64(c.VocabSize) * int64(c.HiddenSize)
	}
	return n
}

// Linears returns the decoder's linears in the order of the layers (q, k, v, o, gate, up, down), lm_head last.
func (m *Model) Linears() []*Linear { return m.linears }

// Params returns what is trained.
func (m *Model) Params() *Params { return m.params }

// The modules that TrainFull knows.
const (
	EmbedTokens = "model.embed_tokens"
	LMHead      = "lm_head"
)

// TrainFull makes "model.embed_tokens" or "lm_head" a trained copy of its matrix [vocabulary, hidden]. In a tied
// model the copies part company, as they do in PEFT; see TieTraining.
func (m *Model) TrainFull(module string) (p *Param, err error) {
	defer m.caught(&err)
	var slot *backend.Param
	var frozen string
	switch module {
	case EmbedTokens:
		slot, frozen = &m.embed.Train, embedTensor
	case LMHead:
		slot, frozen = &m.head.Train, headTensor
	default:
		return nil, fmt.Errorf("%s cannot be trained in full; %s and %s can", module, EmbedTokens, LMHead)
	}
	if *slot != nil {
		return nil, fmt.Errorf("%s is trained in full already", module)
	}
	if module == LMHead && m.head.A != nil {
		return nil, fmt.Errorf("%s has a low-rank branch", module)
	}
	t, ok := m.ckpt.Tensor(frozen)
	if !ok { // tied, and stored under the other name
		t, _ = m.ckpt.Tensor(map[string]string{embedTensor: headTensor, headTensor: embedTensor}[frozen])
	}
	if m.cfg.TieWordEmbeddings {
		if e, ok := m.ckpt.Tensor(embedTensor); ok {
			t = e
		}
	}
	v := make([]float32, m.cfg.VocabSize*m.cfg.HiddenSize)
	if err := t.Elements(v, 0); err != nil {
		return nil, err
	}
	raw := m.be.NewParam(m.cfg.VocabSize, m.cfg.HiddenSize)
	raw.Write(v)
	*slot = raw
	m.dropGraphs()
	return m.params.add(module+".weight", raw), nil
}

// TieTraining makes embed_tokens and lm_head one trained matrix (PEFT's ensure_weight_tying). Only a tied model has
// that.
func (m *Model) TieTraining() (*Param, error) {
	if !m.cfg.TieWordEmbeddings {
		return nil, errors.New("embed_tokens and lm_head are two matrices in this model (tie_word_embeddings is false)")
	}
	p, err := m.TrainFull(EmbedTokens)
	if err != nil {
		return nil, err
	}
	m.head.Train = m.embed.Train
	return p, nil
}
