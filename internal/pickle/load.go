package pickle

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/numeric"
	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

// loader runs pickles that describe tensors.
type loader struct {
	storages map[string]*storage
	find     func(*storage) error // gives a new storage its bytes
}

// load runs the pickle at the start of data and returns what it makes, and its length.
func (l *loader) load(data []byte) (v any, n int, err error) {
	n, err = scan(data)
	if err != nil {
		return nil, 0, err
	}
	if l.storages == nil {
		l.storages = map[string]*storage{}
	}
	r := bytes.NewReader(data[:n])
	defer func() {
		if e := recover(); e != nil {
			if mmap.Fault(e) != nil {
				panic(e) // not the pickle's doing: for Open's guard
			}
			// A dictionary of an odd number of items, a key that cannot be one, an integer of no bytes.
			v, n, err = nil, 0, fmt.Errorf("broken pickle: what ends before byte %d cannot be done", n-r.Len())
		}
	}()
	u := pickle.NewUnpickler(r)
	u.FindClass = findClass
	u.PersistentLoad = l.persistent
	v, err = u.Load()
	if err != nil {
		return nil, 0, fmt.Errorf("before byte %d: %s", n-r.Len(), shorten(err.Error()))
	}
	return v, n, nil
}

// findClass is the list of what a pickle may name, beside the plain containers that the Unpickler knows itself.
func findClass(module, name string) (any, error) {
	full := module + "." + name
	switch full {
	case "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor":
		return rebuildTensor{}, nil
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		return rebuildParameter{}, nil
	}
	if d, ok := storageTypes[full]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("refused: %s", printable(full))
}

var storageTypes = map[string]numeric.DType{
	"torch.FloatStorage": numeric.F32, "torch.HalfStorage": numeric.F16, "torch.BFloat16Storage": numeric.BF16,
	"torch.DoubleStorage": numeric.F64, "torch.LongStorage": numeric.I64, "torch.IntStorage": numeric.I32,
	"torch.ShortStorage": numeric.I16, "torch.CharStorage": numeric.I8, "torch.ByteStorage": numeric.U8,
	"torch.BoolStorage": numeric.Bool,
}

// shorten cuts a message that quotes the pickle.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// printable keeps a hostile name from the terminal.
func printable(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strings.Trim(fmt.Sprintf("%q", s), `"`)
}

// storage is a flat array that tensors are views of.
type storage struct {
	dtype numeric.DType
	key   string
	n     int // elements
	data  []byte
}

// GoString keeps the Unpickler's messages from spelling out the bytes.
func (s *storage) GoString() string { return kind(s) }

// maxElements keeps every product of an element count and an element's size within an int64.
const maxElements = 1 << 48

// persistent finds ("storage", type, key, location, elements), in the old format with a sixth that is None.
func (l *loader) persistent(id any) (any, error) {
	t, ok := id.(*types.Tuple)
	if !ok || t.Len() < 5 || t.Len() > 6 || t.Get(0) != "storage" {
		return nil, errors.New("a persistent id that is not a storage")
	}
	dtype, ok1 := t.Get(1).(numeric.DType)
	key, ok2 := t.Get(2).(string)
	n, ok3 := t.Get(4).(int)
	if !ok1 || !ok2 || !ok3 || n < 0 || n > maxElements {
		return nil, fmt.Errorf("a storage with type %s, key %s and %s elements", kind(t.Get(1)), kind(t.Get(2)), kind(t.Get(4)))
	}
	if t.Len() == 6 && t.Get(5) != nil {
		return nil, fmt.Errorf("storage %.40q is a view of another, which is not supported", key)
	}
	if s, ok := l.storages[key]; ok {
		if s.dtype != dtype || s.n != n {
			return nil, fmt.Errorf("storage %.40q has %d elements of %v here and %d of %v there", key, n, dtype, s.n, s.dtype)
		}
		return s, nil
	}
	s := &storage{dtype: dtype, key: key, n: n}
	if err := l.find(s); err != nil {
		return nil, err
	}
	l.storages[key] = s
	return s, nil
}

// view is a tensor: part of a storage, with strides in elements.
type view struct {
	storage       *storage
	offset        int
	shape, stride []int
	elements      int
}

// GoString is for the Unpickler's messages.
func (v *view) GoString() string { return kind(v) }

// rebuildTensor is _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata).
type rebuildTensor struct{}

func (rebuildTensor) Call(args ...any) (any, error) {
	if len(args) < 4 || len(args) > 7 {
		return nil, fmt.Errorf("a tensor of %d arguments", len(args))
	}
	s, ok := args[0].(*storage)
	if !ok {
		return nil, fmt.Errorf("a tensor of a %s, not of a storage", kind(args[0]))
	}
	offset, ok := args[1].(int)
	if !ok || offset < 0 || offset > s.n {
		return nil, fmt.Errorf("a tensor at %s of storage %.40q, which has %d elements", kind(args[1]), s.key, s.n)
	}
	if len(args) == 7 && args[6] != nil {
		return nil, errors.New("a conjugate or negated tensor is not supported")
	}
	shape, err := dimensions(args[2])
	if err != nil {
		return nil, err
	}
	stride, err := dimensions(args[3])
	if err != nil {
		return nil, err
	}
	v := &view{storage: s, offset: offset, shape: shape, stride: stride}
	return v, v.check()
}

// maxDimensions is torch's own limit.
const maxDimensions = 64

func dimensions(v any) ([]int, error) {
	t, ok := v.(*types.Tuple)
	if !ok || t.Len() > maxDimensions {
		return nil, fmt.Errorf("a shape or stride that is a %s", kind(v))
	}
	out := make([]int, t.Len())
	for i := range out {
		n, ok := t.Get(i).(int)
		if !ok || n < 0 || n > maxElements {
			return nil, fmt.Errorf("a shape or stride with %s in it", kind(t.Get(i)))
		}
		out[i] = n
	}
	return out, nil
}

// check counts the elements and requires that all of them lie in the storage. A tensor with more elements than its
// storage repeats some; a few bytes could then stand for any amount of memory.
func (v *view) check() error {
	if len(v.stride) != len(v.shape) {
		return fmt.Errorf("a shape of %d dimensions with %d strides", len(v.shape), len(v.stride))
	}
	for _, d := range v.shape {
		if d == 0 {
			return nil
		}
	}
	v.elements = 1
	n := v.storage.n
	for _, d := range v.shape {
		if v.elements > n/d {
			return fmt.Errorf("a tensor of shape %v over storage %.40q, which has %d elements", v.shape, v.storage.key, n)
		}
		v.elements *= d
	}
	left := n - 1 - v.offset // how far the last element may be from the first
	for i, d := range v.shape {
		if left < 0 || d > 1 && v.stride[i] > left/(d-1) {
			left = -1
			break
		}
		left -= (d - 1) * v.stride[i]
	}
	if left < 0 {
		return fmt.Errorf("a tensor of shape %v with strides %v at %d reaches beyond storage %.40q, which has %d elements", v.shape, v.stride, v.offset, v.storage.key, n)
	}
	return nil
}

func (v *view) contiguous() bool {
	want := 1
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.stride[i] != want {
			return false
		}
		want *= v.shape[i]
	}
	return true
}

// bytes returns the elements in row-major order.
func (v *view) bytes() []byte {
	size := v.storage.dtype.Size()
	if v.elements == 0 {
		return nil
	}
	if v.contiguous() {
		from, to := v.offset*size, (v.offset+v.elements)*size
		return v.storage.data[from:to:to]
	}
	out := make([]byte, 0, v.elements*size)
	index := make([]int, len(v.shape))
	at := v.offset
	for range v.elements {
		out = append(out, v.storage.data[at*size:(at+1)*size]...)
		for i := len(index) - 1; i >= 0; i-- { // the next index, odometer-wise
			index[i]++
			at += v.stride[i]
			if index[i] < v.shape[i] {
				break
			}
			at -= index[i] * v.stride[i]
			index[i] = 0
		}
	}
	return out
}

// rebuildParameter is _rebuild_parameter(data, requires_grad, hooks), perhaps with a state.
type rebuildParameter struct{}

func (rebuildParameter) Call(args ...any) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("a parameter of nothing")
	}
	v, ok := args[0].(*view)
	if !ok {
		return nil, fmt.Errorf("a parameter of a %s, not of a tensor", kind(args[0]))
	}
	return v, nil
}

// entry is one item of a dictionary.
type entry struct{ key, value any }

// entries lists the items of a dictionary of either kind, in order.
func entries(v any) ([]entry, error) {
	var out []entry
	switch d := v.(type) {
	case *types.Dict:
		for _, e := range *d {
			out = append(out, entry{e.Key, e.Value})
		}
	case *types.OrderedDict:
		for e := d.List.Front(); e != nil; e = e.Next() {
			o := e.Value.(*types.OrderedDictEntry)
			out = append(out, entry{o.Key, o.Value})
		}
	default:
		return nil, fmt.Errorf("a %s was saved, want a dictionary of tensors", kind(v))
	}
	return out, nil
}

// kind names what a pickle made, for messages.
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case *types.Dict, *types.OrderedDict:
		return "dictionary"
	case *types.List:
		return "list"
	case *types.Set, *types.FrozenSet:
		return "set"
	case []byte, *types.ByteArray:
		return "string of bytes"
	case *big.Int:
		return "large number"
	case *types.Tuple:
		return "tuple"
	case *view:
		return "tensor"
	case *storage:
		return "storage"
	case int, bool, float64:
		return fmt.Sprint(v)
	case string:
		return printable(v)
	case numeric.DType:
		return v.String()
	}
	return fmt.Sprintf("%T", v)
}
