package model

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/model/weights"
)

// Random is a model of random bfloat16 numbers, in memory, for measuring: config is the text of the config.json that it
// would have, seed that of its numbers. A base that is to be quantised is so in memory too. The numbers are a table of
// 64 Ki normal ones with a standard deviation of 0.02, again and again from another place.
func Random(ctx context.Context, config []byte, seed uint64, o Options) (*Model, error) {
	const name = "a made-up model"
	if err := o.check(); err != nil {
		return nil, err
	}
	text, err := strictjson.ParseObject(config)
	if err != nil {
		return nil, err
	}
	c, _, err := parseConfig(text, name)
	if err != nil {
		return nil, err
	}
	n := newNoise(seed)
	var tensors []weights.Tensor
	for _, s := range c.Stored(nil) {
		t := weights.Tensor{Name: s.Name, DType: numeric.BF16, Shape: s.Shape}
		t.Data = make([]byte, t.Len()*t.DType.Size())
		if len(s.Shape) == 2 {
			n.fill(t.Data)
		} else {
			fillOnes(t.Data)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		tensors = append(tensors, t)
	}
	ckpt, err := weights.InMemory(name, text, tensors)
	if err != nil {
		return nil, err
	}
	return onDevice(ctx, ckpt, o)
}

// noise is a table of random bfloat16 numbers.
type noise struct {
	table []byte
	rng   *rand.Rand
}

func newNoise(seed uint64) *noise {
	const numbers, deviation = 1 << 16, 0.02
	n := &noise{make([]byte, 0, 2*numbers), rand.New(rand.NewPCG(seed, 0))}
	for range numbers {
		n.table = binary.NativeEndian.AppendUint16(n.table, numeric.F32ToBF16(float32(deviation*n.rng.NormFloat64())))
	}
	return n
}

// fill writes runs of the table to data.
func (n *noise) fill(data []byte) {
	for len(data) > 0 {
		data = data[copy(data, n.table[2*n.rng.IntN(len(n.table)/4):]):]
	}
}

// fillOnes makes a vector of ones: the gain of a norm.
func fillOnes(data []byte) {
	copy(data, slices.Repeat(binary.NativeEndian.AppendUint16(nil, numeric.F32ToBF16(1)), len(data)/2))
}
