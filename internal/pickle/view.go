package pickle

import "github.com/biolora/biolora/internal/numeric"

// View is a tensor where it lies: element (i, j, ...) of Shape is number i*Stride[0] + j*Stride[1] + ... of Data.
type View struct {
	DType         numeric.DType
	Shape, Stride []int  // elements, not bytes
	Data          []byte // from the first element to the last one; a part of the file; not to be written to
}

// View returns the tensor called name without copying it, be it contiguous or not. All its elements lie in Data.
func (f *File) View(name string) (View, bool) {
	v, ok := f.views[name]
	if !ok {
		return View{}, false
	}
	out := View{DType: v.storage.dtype, Shape: v.shape, Stride: v.stride}
	if v.elements == 0 {
		return out, true
	}
	last := v.offset
	for i, d := range v.shape {
		last += (d - 1) * v.stride[i]
	}
	size := v.storage.dtype.Size()
	out.Data = v.storage.data[v.offset*size : (last+1)*size : (last+1)*size]
	return out, true
}
