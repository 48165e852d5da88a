package weights

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/gguf"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
)

// split is the name of one of several files that make a model, as llama.cpp's gguf-split writes them.
var split = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})\.(?i:gguf)$`)

// ggufFile picks the file of a directory that is opened: the only one, or the first of the only set. It returns "" if
// there is none.
func ggufFile(names []string) (string, error) {
	var found []string
	for _, name := range names {
		if !strings.EqualFold(filepath.Ext(name), ".gguf") {
			continue
		}
		if m := split.FindStringSubmatch(name); m != nil && m[2] != "00001" && slices.Contains(names, firstOf(name)) {
			continue
		}
		found = append(found, name)
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%d .gguf files (%s): name the one that is meant", len(found), list(found))
}

// firstOf returns the name of the first file of a set.
func firstOf(name string) string {
	m := split.FindStringSubmatchIndex(name)
	return name[:m[4]] + "00001" + name[m[5]:]
}

// ggufFiles lists the files of the set that name is the first of.
func ggufFiles(name string) ([]string, error) {
	m := split.FindStringSubmatch(name)
	if m == nil {
		return []string{name}, nil
	}
	n, _ := strconv.Atoi(m[3])
	switch {
	case m[2] != "00001":
		return nil, fmt.Errorf("%s is one of %d files of a model: name the first, %s", name, n, firstOf(name))
	case n < 1 || n > maxShards:
		return nil, fmt.Errorf("%s: %d files, from 1 to %d are plausible", name, n, maxShards)
	}
	var names []string
	at := split.FindStringSubmatchIndex(name)
	for i := range n {
		names = append(names, fmt.Sprintf("%s%05d%s", name[:at[4]], i+1, name[at[5]:]))
	}
	return names, nil
}

// openGGUF opens the file called name, and those that belong to it.
func (c *Checkpoint) openGGUF(name string) error {
	c.format = GGUF
	names, err := ggufFiles(name)
	if err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	var files []*gguf.File
	var errs []error
	for _, n := range names {
		path := filepath.Join(c.dir, n)
		f, err := gguf.Open(path)
		if err != nil {
			errs = append(errs, explainMissing(path, err))
			continue
		}
		c.files = append(c.files, path)
		c.open = append(c.open, f)
		files = append(files, f)
	}
	if err := join(errs); err != nil {
		return err
	}
	if err := checkSplit(files); err != nil {
		return err
	}
	return c.addGGUF(files)
}

// checkSplit compares what the files of a set say of themselves.
func checkSplit(files []*gguf.File) error {
	if len(files) == 1 && !files[0].Has("split.count") {
		return nil
	}
	var errs []error
	tensors := 0
	for i, f := range files {
		tensors += len(f.Names())
		for key, want := range map[string]int{"split.no": i, "split.count": len(files)} {
			got, err := f.Uint(key)
			if err == nil && got != uint64(want) && !(len(files) == 1 && key == "split.count" && got == 0) {
				err = fmt.Errorf("%s: %s is %d, want %d by the name of the file", f.Path(), key, got, want)
			}
			errs = append(errs, err)
		}
	}
	if key := "split.tensors.count"; files[0].Has(key) {
		n, err := files[0].Uint(key)
		if err == nil && n != uint64(tensors) {
			err = fmt.Errorf("%s: %s is %d, the %d files have %d", files[0].Path(), key, n, len(files), tensors)
		}
		errs = append(errs, err)
	}
	return join(errs)
}

// addGGUF lists the tensors under Hugging Face's names. Where the metadata describes no model that is known, they keep
// those of the file, and Config says what is wrong.
func (c *Checkpoint) addGGUF(files []*gguf.File) error {
	var list []Tensor
	var errs []error
	for _, f := range files {
		for t := range f.All() {
			list = append(list, ggufTensor(f.Path(), t))
		}
	}
	m, err := readMetadata(files[0], list)
	path := files[0].Path()
	if err != nil {
		c.config = func() (*strictjson.Object, string, error) { return nil, path, err }
		for _, t := range list {
			errs = append(errs, c.add(t))
		}
		return join(errs)
	}
	for _, t := range list {
		var err error
		name, role := ggufName(t.Name)
		switch role {
		case dropped:
			continue
		case query:
			t, err = turn(t, m.heads, m.headDim)
		case key:
			t, err = turn(t, m.kvHeads, m.headDim)
		}
		if err == nil {
			t.Name = name
			err = c.add(t)
		}
		errs = append(errs, err)
	}
	c.config = func() (*strictjson.Object, string, error) { return m.config, path, nil }
	c.warn(path, m.unknown)
	return join(errs)
}

// ggufTensor makes a tensor of one of the file's. What cannot be read is listed all the same.
func ggufTensor(path string, g gguf.Tensor) Tensor {
	t := Tensor{Name: g.Name, DType: g.Type.DType(), Type: g.Type.String(), Shape: g.Shape, File: path, stored: int64(len(g.Data))}
	switch {
	case t.DType != numeric.Invalid:
		t.Data = g.Data
	case g.Type.Readable():
		t.DType, t.blocks = numeric.F32, true
		t.layout = &quantised{g.Type, g.Data}
	}
	return t
}

// ggufModules are llama.cpp's names of the tensors of a layer, and Hugging Face's.
var ggufModules = map[string]struct {
	name string
	role role
}{
	"attn_q":      {"self_attn.q_proj", query},
	"attn_k":      {"self_attn.k_proj", key},
	"attn_v":      {"self_attn.v_proj", plain},
	"attn_output": {"self_attn.o_proj", plain},
	"ffn_gate":    {"mlp.gate_proj", plain},
	"ffn_up":      {"mlp.up_proj", plain},
	"ffn_down":    {"mlp.down_proj", plain},
	"attn_norm":   {"input_layernorm", vector},
	"ffn_norm":    {"post_attention_layernorm", vector},
}

const ropeFreqs = "rope_freqs.weight"

// ggufName returns Hugging Face's name of a tensor, and what it is. A name that llama.cpp does not have stays.
func ggufName(name string) (string, role) {
	switch name {
	case "token_embd.weight":
		return embedName, plain
	case "output.weight":
		return headName, plain
	case "output_norm.weight":
		return normName, vector
	case ropeFreqs:
		return name, dropped // it is in the configuration
	}
	layer, module, ok := layerOf(name, "blk.")
	if !ok {
		return name, other
	}
	part, kind, _ := strings.Cut(module, ".")
	m, ok := ggufModules[part]
	if !ok || kind != "weight" && (kind != "bias" || m.role == vector) {
		return name, other
	}
	return fmt.Sprintf("model.layers.%d.%s.%s", layer, m.name, kind), m.role
}

// metadata is what a GGUF file says of a model.
type metadata struct {
	heads, kvHeads, headDim int
	config                  *strictjson.Object
	unknown                 []string // keys
}
