package gguf

import (
	"fmt"
	"math/bits"

	"github.com/biolora/biolora/internal/numeric"
)

// Type is the format of a tensor's elements, numbered as in the file (ggml's enum ggml_type).
type Type uint32

// The formats. Which of them Dequantize reads, Readable says.
const (
	F32    Type = 0
	F16    Type = 1
	Q4_0   Type = 2
	Q4_1   Type = 3
	Q5_0   Type = 6
	Q5_1   Type = 7
	Q8_0   Type = 8
	Q8_1   Type = 9
	Q2_K   Type = 10
	Q3_K   Type = 11
	Q4_K   Type = 12
	Q5_K   Type = 13
	Q6_K   Type = 14
	Q8_K   Type = 15
	IQ2XXS Type = 16
	IQ2XS  Type = 17
	IQ3XXS Type = 18
	IQ1S   Type = 19
	IQ4NL  Type = 20
	IQ3S   Type = 21
	IQ2S   Type = 22
	IQ4XS  Type = 23
	I8     Type = 24
	I16    Type = 25
	I32    Type = 26
	I64    Type = 27
	F64    Type = 28
	IQ1M   Type = 29
	BF16   Type = 30
	TQ1_0  Type = 34
	TQ2_0  Type = 35
	MXFP4  Type = 39
	NVFP4  Type = 40
	Q1_0   Type = 41
)

// types holds the name of each format, and how many elements a block has and how many bytes it takes: 0 for formats
// that were taken out of GGUF again.
var types = [...]struct {
	name            string
	elements, bytes int
}{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, BF16: {"BF16", 1, 2}, F64: {"F64", 1, 8},
	I8: {"I8", 1, 1}, I16: {"I16", 1, 2}, I32: {"I32", 1, 4}, I64: {"I64", 1, 8},
	Q4_0: {"Q4_0", 32, 18}, Q4_1: {"Q4_1", 32, 20}, Q5_0: {"Q5_0", 32, 22}, Q5_1: {"Q5_1", 32, 24},
	Q8_0: {"Q8_0", 32, 34}, Q8_1: {"Q8_1", 32, 40}, Q1_0: {"Q1_0", 128, 18},
	Q2_K: {"Q2_K", 256, 84}, Q3_K: {"Q3_K", 256, 110}, Q4_K: {"Q4_K", 256, 144}, Q5_K: {"Q5_K", 256, 176},
	Q6_K: {"Q6_K", 256, 210}, Q8_K: {"Q8_K", 256, 292},
	IQ1S: {"IQ1_S", 256, 50}, IQ1M: {"IQ1_M", 256, 56}, IQ2XXS: {"IQ2_XXS", 256, 66}, IQ2XS: {"IQ2_XS", 256, 74},
	IQ2S: {"IQ2_S", 256, 82}, IQ3XXS: {"IQ3_XXS", 256, 98}, IQ3S: {"IQ3_S", 256, 110}, IQ4NL: {"IQ4_NL", 32, 18},
	IQ4XS: {"IQ4_XS", 256, 136}, TQ1_0: {"TQ1_0", 256, 54}, TQ2_0: {"TQ2_0", 256, 66},
	MXFP4: {"MXFP4", 32, 17}, NVFP4: {"NVFP4", 64, 36},
	4: {name: "Q4_2"}, 5: {name: "Q4_3"}, 31: {name: "Q4_0_4_4"}, 32: {name: "Q4_0_4_8"}, 33: {name: "Q4_0_8_8"},
	36: {name: "IQ4_NL_4_4"}, 37: {name: "IQ4_NL_4_8"}, 38: {name: "IQ4_NL_8_8"},
}

// String returns the format's name as llama.cpp spells it, such as "Q4_K".
func (t Type) String() string {
	if int64(t) < int64(len(types)) {
		return types[t].name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Block returns how many elements of a row make a block, and how many bytes that takes; 0, 0 where it is not known.
func (t Type) Block() (elements, bytes int) {
	if int64(t) < int64(len(types)) {
		return types[t].elements, types[t].bytes
	}
	return 0, 0
}

// DType returns the format as package numeric names it, where it is one of plain numbers, and numeric.Invalid for
// blocks.
func (t Type) DType() numeric.DType {
	if elements, _ := t.Block(); elements != 1 {
		return numeric.Invalid
	}
	d, _ := numeric.Parse(t.String())
	return d
}

// size is how many bytes a tensor takes. Rows are made of whole blocks.
func (t Type) size(shape []int) (uint64, error) {
	elements, bytes := t.Block()
	switch {
	case elements == 0 && int64(t) < int64(len(types)):
		return 0, fmt.Errorf("%v was taken out of the format; make the file again from its source", t)
	case elements == 0:
		return 0, fmt.Errorf("%v is not a known format", t)
	case len(shape) > MaxDims:
		return 0, fmt.Errorf("shape %v has %d dimensions, at most %d are allowed", shape, len(shape), MaxDims)
	}
	row := 1
	if len(shape) > 0 {
		row = shape[len(shape)-1]
	}
	n := uint64(1)
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 1 {
			return 0, fmt.Errorf("shape %v: each dimension must be at least 1", shape)
		}
		if hi != 0 {
			return 0, fmt.Errorf("shape %v is too large", shape)
		}
		n = lo
	}
	if row%elements != 0 {
		return 0, fmt.Errorf("rows of %d elements are not whole blocks: %v has %d in each", row, t, elements)
	}
	hi, lo := bits.Mul64(n/uint64(elements), uint64(bytes))
	if hi != 0 {
		return 0, fmt.Errorf("shape %v is too large", shape)
	}
	return lo, nil
}
