package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/nlpodyssey/gopickle/types"
)

// The first two pickles of the old format (torch/serialization.py).
const (
	magicHex        = "1950a86a20f9469cfc6c"
	protocolVersion = 1001
)

var errNoPyTorch = errors.New("neither a zip nor the old format of torch.save")

// readLegacy reads the format before PyTorch 1.6: pickles of a magic number, a version, facts about the system, the
// object and the list of its storages' keys, one after another; then each storage, its number of elements before it.
func readLegacy(data []byte) (any, error) {
	pos := 0
	l := &loader{storages: map[string]*storage{}, find: func(*storage) error { return nil }}
	next := func(what string) (any, error) {
		v, n, err := l.load(data[pos:])
		if err != nil {
			return nil, fmt.Errorf("%s at byte %d: %w", what, pos, err)
		}
		pos += n
		return v, nil
	}
	magic, err := next("pickle")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoPyTorch, err)
	}
	if m, ok := magic.(*big.Int); !ok || m.Text(16) != magicHex {
		return nil, errNoPyTorch
	}
	version, err := next("version")
	if err != nil {
		return nil, err
	}
	if version != protocolVersion {
		return nil, fmt.Errorf("version %s, want %d", kind(version), protocolVersion)
	}
	system, err := next("system")
	if err != nil {
		return nil, err
	}
	if err := checkSystem(system); err != nil {
		return nil, err
	}
	root, err := next("object")
	if err != nil {
		return nil, err
	}
	keys, err := next("list of storages")
	if err != nil {
		return nil, err
	}
	return root, l.place(keys, data, pos)
}

func checkSystem(v any) error {
	items, err := entries(v)
	if err != nil {
		return fmt.Errorf("system: %w", err)
	}
	for _, e := range items {
		if e.key == "little_endian" && e.value != true {
			return errors.New("the file is big-endian, which is not supported")
		}
	}
	return nil
}

// place gives the storages their bytes, from pos on in the order of keys.
func (l *loader) place(keys any, data []byte, pos int) error {
	list, ok := keys.(*types.List)
	if !ok {
		return fmt.Errorf("the list of storages is a %s", kind(keys))
	}
	for _, k := range *list {
		key, _ := k.(string)
		s, ok := l.storages[key]
		if !ok {
			return fmt.Errorf("storage %.40q belongs to no tensor", key)
		}
		if s.data != nil {
			return fmt.Errorf("storage %.40q is there twice", key)
		}
		if len(data)-pos < 8 {
			return fmt.Errorf("storage %.40q: the file ends at byte %d, want 8 more", key, len(data))
		}
		n := binary.LittleEndian.Uint64(data[pos:])
		pos += 8
		if n != uint64(s.n) {
			return fmt.Errorf("storage %.40q at byte %d has %d elements, want %d", key, pos, n, s.n)
		}
		size := s.n * s.dtype.Size()
		if size > len(data)-pos {
			return fmt.Errorf("storage %.40q at byte %d has %d bytes, the file ends at %d", key, pos, size, len(data))
		}
		s.data = data[pos : pos+size : pos+size]
		pos += size
	}
	for key, s := range l.storages {
		if s.data == nil {
			return fmt.Errorf("storage %.40q is not in the file", key)
		}
	}
	return nil
}
