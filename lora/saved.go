package lora

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/pickle"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// The files of an adapter's directory.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
	cardFile    = "README.md"
	pickleFile  = "adapter_model.bin"
)

// keyPrefix is before every name in an adapter's file, since PEFT wraps the model twice.
const keyPrefix = "base_model.model."

// maxConfig is more bytes than an adapter_config.json has.
const maxConfig = 4 << 20

// Saved is an adapter outside a model.
type Saved struct {
	Config  Config
	Modules map[string]*LowRank // by the module's full name
	Full    map[string]*Matrix  // trained whole, by the module's full name
	// Base is the format that the linears of the base's layers had in training: "nf4", "int8", or "" for their own. The
	// card tells it; PEFT has no place for it, so Read does not find it.
	Base string
	// Card is the card that it was trained on; empty: none. The README tells it.
	Card string
}

// LowRank is a branch: y += Scale * B (A x).
type LowRank struct {
	In, Out, R int
	Scale      float64   // alpha / r, or alpha / sqrt(r) with rsLoRA, with the module's own alpha and r
	A          []float32 // [R, In], row-major
	B          []float32 // [Out, R], row-major
}

// Matrix is a dense matrix, row-major.
type Matrix struct {
	Rows, Cols int
	Data       []float32
}

// Read reads a PEFT directory: adapter_config.json with adapter_model.safetensors or, where that is missing,
// adapter_model.bin. Tensors in F16 and BF16 are widened. Tensors named ….base_layer.* are the frozen base's and are
// skipped; any other tensor that is not the adapter's is an error, and so is one that is missing, misshapen or not
// finite. Whether the adapter fits a model is Fits' to say.
func Read(dir string) (*Saved, error) {
	path := filepath.Join(dir, ConfigFile)
	o, err := strictjson.ReadObject(path, maxConfig)
	if err != nil {
		return nil, err
	}
	cfg, err := parseConfig(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	src, err := openTensors(dir)
	if err != nil {
		return nil, err
	}
	var s *Saved
	err = mmap.Guard(func() (err error) {
		if s, err = readTensors(cfg, src); err != nil {
			err = fmt.Errorf("%s: %w", src.path, err)
		}
		return err
	})
	if err = errors.Join(err, src.close()); err != nil {
		return nil, err
	}
	return s, nil
}

// tensors is a file of tensors of either format.
type tensors struct {
	path  string
	names []string
	get   func(name string) (tensor, bool)
	close func() error
}

type tensor struct {
	dtype numeric.DType
	typ   string // for messages
	shape []int
	data  []byte
}

func openTensors(dir string) (*tensors, error) {
	path := filepath.Join(dir, WeightsFile)
	f, err := safetensors.Open(path)
	if err == nil {
		get := func(name string) (tensor, bool) {
			t, ok := f.Tensor(name)
			return tensor{t.DType, t.Type, t.Shape, t.Data}, ok
		}
		return &tensors{path, f.Names(), get, f.Close}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old := filepath.Join(dir, pickleFile)
	if _, statErr := os.Stat(old); errors.Is(statErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w, and no %s either", err, pickleFile)
	}
	p, err := pickle.Open(old)
	if err != nil {
		return nil, err
	}
	get := func(name string) (tensor, bool) {
		t, ok := p.Tensor(name)
		return tensor{t.DType, t.DType.String(), t.Shape, t.Data}, ok
	}
	return &tensors{old, p.Names(), get, p.Close}, nil
}

// part says what a tensor of an adapter is.
type part int

const (
	unknownPart part = iota
	partA
	partB
	partWhole
	partBase // of the frozen base
)

// classify returns the module that a tensor belongs to, and what it is there.
func classify(key string) (module string, p part) {
	name, ok := strings.CutPrefix(key, keyPrefix)
	if !ok {
		return "", unknownPart
	}
	if strings.Contains(name, ".base_layer.") {
		return "", partBase
	}
	for suffix, p := range map[string]part{".lora_A.weight": partA, ".lora_B.weight": partB} {
		if module, ok := strings.CutSuffix(name, suffix); ok {
			return module, p
		}
	}
	if module, ok := strings.CutSuffix(name, ".weight"); ok {
		return module, partWhole
	}
	return "", unknownPart
}

func keyOf(module string, p part) string {
	return keyPrefix + module + map[part]string{partA: ".lora_A.weight", partB: ".lora_B.weight", partWhole: ".weight"}[p]
}

// readTensors sorts the tensors of a file into modules.
func readTensors(cfg Config, src *tensors) (*Saved, error) {
	s := &Saved{Config: cfg, Modules: map[string]*LowRank{}, Full: map[string]*Matrix{}}
	r, err := cfg.compile()
	if err != nil {
		return nil, err
	}
	p := &problems{}
	for _, key := range src.names {
		module, part := classify(key)
		if part == partBase {
			continue
		}
		if part == unknownPart || len(module) > maxName || part == partWhole && !cfg.savesWhole(module) {
			p.addf("unknown tensor %.120q", key)
			continue
		}
		t, _ := src.get(key)
		m, err := widen(t)
		if err != nil {
			p.addf("tensor %q: %w", key, err)
			continue
		}
		if part == partWhole {
			s.Full[module] = m
			continue
		}
		if err := s.add(r, module, part, m); err != nil {
			p.addf("tensor %q: %w", key, err)
		}
	}
	if len(p.errs) == 0 {
		s.checkPairs(p)
	}
	return s, p.err()
}

// savesWhole reports whether the configuration trains a module whole.
func (c Config) savesWhole(module string) bool {
	if c.EnsureWeightTying && (module == embedTokens || module == lmHead) {
		return true
	}
	return slices.ContainsFunc(c.ModulesToSave, func(s string) bool { return strings.HasSuffix(module, s) })
}

// add puts A or B in its place. The rank must be the configuration's.
func (s *Saved) add(r *rules, module string, p part, m *Matrix) error {
	l := s.Modules[module]
	if l == nil {
		t, err := r.newTarget(Module{Name: module})
		if err != nil {
			return err
		}
		l = &LowRank{R: t.R, Scale: t.Scale}
		s.Modules[module] = l
	}
	rank := m.Rows
	if p == partB {
		rank = m.Cols
	}
	if rank != l.R {
		return fmt.Errorf("rank %d, want %d by the configuration", rank, l.R)
	}
	if p == partA {
		l.A, l.In = m.Data, m.Cols
	} else {
		l.B, l.Out = m.Data, m.Rows
	}
	return nil
}

func (s *Saved) checkPairs(p *problems) {
	for _, name := range s.names() {
		if l := s.Modules[name]; l.A == nil {
			p.addf("tensor %q is missing", keyOf(name, partA))
		} else if l.B == nil {
			p.addf("tensor %q is missing", keyOf(name, partB))
		}
	}
	if len(s.Modules) == 0 {
		p.addf("there is no tensor of a low-rank branch")
	}
}

// names lists the modules with a branch, sorted.
func (s *Saved) names() []string {
	names := make([]string, 0, len(s.Modules))
	for name := range s.Modules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// widen converts a matrix to float32 and requires that it is finite.
func widen(t tensor) (*Matrix, error) {
	if len(t.shape) != 2 || t.shape[0] == 0 || t.shape[1] == 0 {
		return nil, fmt.Errorf("shape %v, want two dimensions above 0", t.shape)
	}
	n := len(t.data) / max(1, t.dtype.Size())
	out := make([]float32, n)
	switch t.dtype {
	case numeric.F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.data[4*i:]))
		}
	case numeric.F16:
		for i := range out {
			out[i] = numeric.F16ToF32(binary.LittleEndian.Uint16(t.data[2*i:]))
		}
	case numeric.BF16:
		for i := range out {
			out[i] = numeric.BF16ToF32(binary.LittleEndian.Uint16(t.data[2*i:]))
		}
	default:
		return nil, fmt.Errorf("format %s, want F32, F16 or BF16", t.typ)
	}
	for i, v := range out {
		if v-v != 0 {
			return nil, fmt.Errorf("element %d is %v", i, v)
		}
	}
	return &Matrix{t.shape[0], t.shape[1], out}, nil
}

// Fits checks the adapter against the modules of a model (Decoder lists them), whose embed_tokens and lm_head may be
// tied: its configuration must choose just the modules that it has tensors for, in their shapes.
func (s *Saved) Fits(modules []Module, tied bool) error {
	_, err := s.fit(modules, tied)
	return err
}

func (s *Saved) fit(modules []Module, tied bool) (*Matching, error) {
	m, err := s.Config.plan(modules, tied)
	if err != nil {
		return nil, err
	}
	p := &problems{}
	chosen := map[string]bool{}
	for _, t := range m.Targets {
		chosen[t.Name] = true
		l, ok := s.Modules[t.Name]
		if !ok {
			p.addf("tensors %q and lora_B are missing", keyOf(t.Name, partA))
			continue
		}
		if l.In != t.In {
			p.addf("tensor %q has shape [%d, %d], want [%d, %d]", keyOf(t.Name, partA), l.R, l.In, t.R, t.In)
		}
		if l.Out != t.Out {
			p.addf("tensor %q has shape [%d, %d], want [%d, %d]", keyOf(t.Name, partB), l.Out, l.R, t.Out, t.R)
		}
	}
	for _, name := range s.names() {
		if !chosen[name] {
			p.addf("tensor %q belongs to a module that the configuration does not adapt, or the model does not have", keyOf(name, partA))
		}
	}
	s.fitFull(p, m)
	return m, p.err()
}

func (s *Saved) fitFull(p *problems, m *Matching) {
	chosen := map[string]bool{}
	for _, mod := range m.Save {
		chosen[mod.Name] = true
		f, ok := s.Full[mod.Name]
		if !ok {
			p.addf("tensor %q is missing", keyOf(mod.Name, partWhole))
		} else if f.Rows != mod.Out || f.Cols != mod.In {
			p.addf("tensor %q has shape [%d, %d], want [%d, %d]", keyOf(mod.Name, partWhole), f.Rows, f.Cols, mod.Out, mod.In)
		}
	}
	for name := range s.Full {
		if !chosen[name] {
			p.addf("tensor %q belongs to a module that the configuration does not train whole, or the model does not have", keyOf(name, partWhole))
		}
	}
	if m.tie && len(p.errs) == 0 && !sameBits(s.Full[embedTokens].Data, s.Full[lmHead].Data) {
		p.addf("%s and %s are to be one matrix (ensure_weight_tying) but differ", keyOf(embedTokens, partWhole), keyOf(lmHead, partWhole))
	}
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}
