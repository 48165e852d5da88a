package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/strictjson"
)

// metaSet is the files that a checkpoint in Meta's form consists of: shards that each hold a part of every tensor, or
// files that hold different tensors, as Mistral has them.
type metaSet struct {
	parts []string // in their order
	whole string   // consolidated.safetensors or its index
}

const (
	metaPrefix = "consolidated."
	metaSingle = "consolidated.safetensors"
	metaIndex  = "consolidated.safetensors.index.json"
)

func (m metaSet) any() bool { return len(m.parts) > 0 || m.whole != "" }

// metaFiles finds them among the names of a directory.
func metaFiles(names []string) (metaSet, error) {
	numbered := map[int]string{}
	var numbers []int
	for _, name := range names {
		digits, ok := strings.CutSuffix(strings.TrimPrefix(name, metaPrefix), ".pth")
		n, err := strconv.Atoi(digits)
		if !ok || !strings.HasPrefix(name, metaPrefix) || err != nil || n < 0 || strings.ContainsAny(digits, "+-") {
			continue
		}
		if other, twice := numbered[n]; twice {
			return metaSet{}, fmt.Errorf("%s and %s are the same shard", other, name)
		}
		numbered[n] = name
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		for _, name := range []string{metaSingle, metaIndex} {
			if slices.Contains(names, name) {
				return metaSet{whole: name}, nil
			}
		}
		return metaSet{}, nil
	}
	slices.Sort(numbers)
	m := metaSet{}
	for i, n := range numbers {
		if i != n {
			return m, fmt.Errorf("shard %d of Meta's checkpoint is missing, though there is %s", i, numbered[n])
		}
		m.parts = append(m.parts, numbered[n])
	}
	return m, nil
}

// openMeta opens them.
func (c *Checkpoint) openMeta(m metaSet) error {
	c.format = Meta
	path := filepath.Join(c.dir, ParamsFile)
	o, err := strictjson.ReadObject(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) && !exists(path) {
		err = fmt.Errorf("%s is missing, without which Meta's files cannot be read: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	p, err := parseParams(o, path)
	if err != nil {
		return err
	}
	if err := c.openMetaFiles(m, p); err != nil {
		return err
	}
	if err := p.fit(c); err != nil {
		return err
	}
	if !exists(filepath.Join(c.dir, ConfigFile)) {
		config := p.config(c)
		c.warn(path, p.unknown)
		c.config = func() (*strictjson.Object, string, error) { return config, path, nil }
	}
	return nil
}

func (c *Checkpoint) openMetaFiles(m metaSet, p *params) error {
	if m.whole == "" {
		return c.openParts(m.parts, p)
	}
	// Files with different tensors are read as Hugging Face's are, then named and turned.
	var err error
	if m.whole == metaSingle {
		err = c.openSingle(m.whole)
	} else {
		err = c.openIndex(m.whole)
	}
	if err != nil {
		return err
	}
	list := c.tensors
	c.tensors, c.byName, c.shards, c.index = nil, map[string]int{}, nil, nil
	var errs []error
	for _, t := range list {
		errs = append(errs, c.addMeta([]Tensor{t}, p))
	}
	return join(errs)
}

// openParts opens shards that each hold a part of every tensor.
func (c *Checkpoint) openParts(files []string, p *params) error {
	var shards []*shard
	var errs []error
	for _, file := range files {
		s, err := openShard(filepath.Join(c.dir, file))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.take(s)
		shards = append(shards, s)
	}
	if err := join(errs); err != nil {
		return err
	}
	if err := p.countParts(shards); err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	for _, t := range shards[0].tensors {
		parts := []Tensor{t}
		for _, s := range shards[1:] {
			part, ok := s.tensor(t.Name)
			if !ok {
				errs = append(errs, fmt.Errorf("%s does not hold tensor %s, of which %s has a part", s.path, printable(t.Name), shards[0].path))
				continue
			}
			parts = append(parts, part)
		}
		if len(parts) == len(shards) {
			errs = append(errs, c.addMeta(parts, p))
		}
	}
	for _, s := range shards[1:] {
		for _, t := range s.tensors {
			if _, ok := shards[0].byName[t.Name]; !ok {
				errs = append(errs, fmt.Errorf("%s does not hold tensor %s, of which %s has a part", shards[0].path, printable(t.Name), s.path))
			}
		}
	}
	return join(errs)
}

// countParts tells from the rows of a matrix that is always split by them that the last files are missing.
func (p *params) countParts(shards []*shard) error {
	const name = "layers.0.attention.wq.weight"
	t, ok := shards[0].tensor(name)
	rows, cols := t.Size()
	want := p.heads * p.headDim
	if !ok || rows == 0 || cols != p.dim || want%rows != 0 || want/rows <= len(shards) {
		return nil
	}
	return fmt.Errorf("%s has %d of the %d rows of %s: there must be %d files like it, and there are %d",
		shards[0].path, rows, want, name, want/rows, len(shards))
}

// role is what a tensor is in the decoder, as far as its parts and its rows are concerned.
type role int

const (
	other   role = iota
	plain        // a matrix that is split by rows or by columns
	query        // rows in rotary order
	key          // likewise, with the heads of keys
	vector       // the same in all shards
	dropped      // not a weight
)

// metaModules are Meta's names of the tensors of a layer, and Hugging Face's.
var metaModules = map[string]struct {
	name string
	role role
}{
	"attention.wq.weight":    {"self_attn.q_proj.weight", query},
	"attention.wk.weight":    {"self_attn.k_proj.weight", key},
	"attention.wv.weight":    {"self_attn.v_proj.weight", plain},
	"attention.wo.weight":    {"self_attn.o_proj.weight", plain},
	"feed_forward.w1.weight": {"mlp.gate_proj.weight", plain},
	"feed_forward.w2.weight": {"mlp.down_proj.weight", plain},
	"feed_forward.w3.weight": {"mlp.up_proj.weight", plain},
	"attention_norm.weight":  {"input_layernorm.weight", vector},
	"ffn_norm.weight":        {"post_attention_layernorm.weight", vector},
}

// Hugging Face's names of what does not belong to a layer.
const (
	embedName = "model.embed_tokens.weight"
	headName  = "lm_head.weight"
	normName  = "model.norm.weight"
)

// metaName returns Hugging Face's name of a tensor, and what it is. A name that Meta does not have stays.
func metaName(name string) (string, role) {
	switch name {
	case "tok_embeddings.weight":
		return embedName, plain
	case "output.weight":
		return headName, plain
	case "norm.weight":
		return normName, vector
	}
	if strings.HasSuffix(name, "rope.freqs") {
		return name, dropped // a table that follows from params.json
	}
	layer, module, ok := layerOf(name, "layers.")
	if m, known := metaModules[module]; ok && known {
		return fmt.Sprintf("model.layers.%d.%s", layer, m.name), m.role
	}
	return name, other
}

// layerOf splits a name such as "layers.3.attention.wq.weight".
func layerOf(name, prefix string) (layer int, module string, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, "", false
	}
	number, module, ok := strings.Cut(rest, ".")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || strconv.Itoa(n) != number || n < 0 {
		return 0, "", false
	}
	return n, module, true
}

// addMeta makes one tensor of its parts.
func (c *Checkpoint) addMeta(parts []Tensor, p *params) error {
	name, role := metaName(parts[0].Name)
	if role == dropped {
		return nil
	}
	t, err := assemble(parts, role, p)
	if err != nil {
		return err
	}
	t.Name = name
	return c.add(t)
}

// assemble joins the parts and puts rows into Hugging Face's order.
func assemble(parts []Tensor, role role, p *params) (Tensor, error) {
	t := parts[0]
	if len(parts) > 1 {
		for _, part := range parts[1:] {
			if part.DType != t.DType || !slices.Equal(part.Shape, t.Shape) {
				return t, fmt.Errorf("tensor %s is %s %v in %s, and %s %v in %s", printable(t.Name), t.Type, t.Shape, t.File, part.Type, part.Shape, part.File)
			}
			t.stored += part.stored
		}
		var err error
		switch role {
		case vector:
			return t, sameValues(t, parts, p.dim)
		case plain, query, key:
			t, err = joinParts(t, parts, p)
		default:
			err = fmt.Errorf("%s: tensor %s is none that Meta's checkpoints have: how its %d parts go together is not known", t.File, printable(t.Name), len(parts))
		}
		if err != nil {
			return t, err
		}
	}
	switch role {
	case query:
		return turn(t, p.heads, p.headDim)
	case key:
		return turn(t, p.kvHeads, p.headDim)
	}
	return t, nil
}

// joinParts puts the parts of a matrix together. wo and w2 are split by columns, the others by rows; the embedding is
// split by columns in LLaMA 1 and 2 and by rows in Llama 3, which its shape tells.
func joinParts(t Tensor, parts []Tensor, p *params) (Tensor, error) {
	n := len(parts)
	if len(t.Shape) != 2 {
		return t, t.errorf("shape %v in each of %d shards, want a matrix", t.Shape, n)
	}
	rows, cols := t.Shape[0], t.Shape[1]
	_, module, _ := layerOf(t.Name, "layers.")
	embedding := t.Name == "tok_embeddings.weight"
	byColumns := embedding && cols != p.dim || module == "attention.wo.weight" || module == "feed_forward.w2.weight"
	fits := cols == p.dim
	if byColumns {
		fits = rows == p.dim || embedding && cols*n == p.dim
	}
	if !fits || rows == 0 || cols == 0 || t.DType.Size() == 0 {
		return t, t.errorf("%s %v in each of %d shards cannot be joined: %s says dim %d", t.Type, t.Shape, n, ParamsFile, p.dim)
	}
	j := &joined{size: t.DType.Size(), width: rows * cols}
	for _, part := range parts {
		j.parts = append(j.parts, layoutOf(part))
	}
	t.Data, t.layout, t.Shape = nil, j, []int{rows * n, cols}
	if byColumns {
		t.Shape, j.width = []int{rows, cols * n}, cols
	}
	return t, nil
}

// turn puts the rows of heads into Hugging Face's rotary order.
func turn(t Tensor, heads, headDim int) (Tensor, error) {
	rows, cols := t.Size()
	if rows != heads*headDim || cols == 0 || headDim%2 != 0 {
		return t, t.errorf("%s %v, want %d rows: %d heads of %d, an even number", t.Type, t.Shape, heads*headDim, heads, headDim)
	}
	if t.DType.Size() == 0 {
		return t, nil // it can only be listed: who asks for its values is told so
	}
	t.layout = &turned{base: layoutOf(t), row: cols * t.DType.Size(), cols: cols, headDim: headDim}
	t.Data = nil
	return t, nil
}

// sameValues returns an error unless all parts are the same vector.
func sameValues(t Tensor, parts []Tensor, dim int) error {
	if !slices.Equal(t.Shape, []int{dim}) {
		return t.errorf("shape %v, want %v: %s says dim %d", t.Shape, []int{dim}, ParamsFile, dim)
	}
	return mmap.Guard(func() error {
		first := make([]byte, dim*t.DType.Size())
		again := make([]byte, len(first))
		if err := layoutOf(t).fill(first, 0); err != nil {
			return err
		}
		for _, part := range parts[1:] {
			if err := layoutOf(part).fill(again, 0); err != nil {
				return err
			}
			if !bytes.Equal(first, again) {
				return fmt.Errorf("tensor %s must be the same in all shards, and differs in %s and %s", printable(t.Name), t.File, part.File)
			}
		}
		return nil
	})
}
