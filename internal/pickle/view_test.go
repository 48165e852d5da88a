package pickle

import (
	"bytes"
	"path/filepath"
	"testing"
)

// A view has the elements of the tensor, in the file's own bytes.
func TestView(t *testing.T) {
	for _, name := range []string{"zip.bin", "legacy.bin"} {
		f, err := Open(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, n := range f.Names() {
			want, _ := f.Tensor(n)
			v, ok := f.View(n)
			if !ok || v.DType != want.DType || len(v.Shape) != len(want.Shape) || len(v.Stride) != len(v.Shape) {
				t.Fatalf("%s: %q is %+v", name, n, v)
			}
			if got := collect(v); !bytes.Equal(got, want.Data) {
				t.Errorf("%s: %q is %x\nwant %x", name, n, got, want.Data)
			}
		}
		if _, ok := f.View("nothing"); ok {
			t.Error("a view of what is not there")
		}
	}
}

// collect reads the elements one by one.
func collect(v View) (out []byte) {
	size, n := v.DType.Size(), 1
	for _, d := range v.Shape {
		n *= d
	}
	for i := range n {
		at := 0
		for d := len(v.Shape) - 1; d >= 0; d-- {
			at += i % v.Shape[d] * v.Stride[d]
			i /= v.Shape[d]
		}
		out = append(out, v.Data[at*size:(at+1)*size]...)
	}
	return out
}
