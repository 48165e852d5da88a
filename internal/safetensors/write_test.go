package safetensors

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
)

func TestWrite(t *testing.T) {
	var buf bytes.Buffer
	err := Write(&buf, []Source{
		{Name: "b<\"é", DType: numeric.BF16, Shape: []int{1, 2}, Data: []byte{1, 2, 3, 4}},
		{Name: "a", DType: numeric.F32, Write: func(w io.Writer) error {
			_, err := w.Write([]byte{5, 6})
			_, err2 := w.Write([]byte{7, 8})
			return errors.Join(err, err2)
		}},
		{Name: "c", Type: "F8_E5M2", Shape: []int{3, 0}},
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"format":"pt"},"b<\"é":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},` +
		`"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]},"c":{"dtype":"F8_E5M2","shape":[3,0],"data_offsets":[8,8]}}`
	header += strings.Repeat(" ", -len(header)&7)
	if want := file(header, 1, 2, 3, 4, 5, 6, 7, 8); !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("got\n%q\nwant\n%q", buf.Bytes(), want)
	}
}

func TestWriteNothing(t *testing.T) {
	var buf bytes.Buffer
	if err := Write(&buf, nil, nil); err != nil || !bytes.Equal(buf.Bytes(), file("{}      ")) {
		t.Errorf("%q, %v", buf.Bytes(), err)
	}
}

func TestWriteErrors(t *testing.T) {
	u8 := func(name string, n int) Source {
		return Source{Name: name, DType: numeric.U8, Shape: []int{n}, Data: make([]byte, n)}
	}
	giveBytes := func(n int) Source {
		s := u8("w", 4)
		s.Write = func(w io.Writer) error { _, err := w.Write(make([]byte, n)); return err }
		return s
	}
	boom := errors.New("boom")
	fails := u8("w", 4)
	fails.Write = func(io.Writer) error { return boom }
	for want, sources := range map[string][]Source{
		`tensor "__metadata__": the name is reserved`:                                  {u8("__metadata__", 1)},
		`tensor "a": the name is there twice`:                                          {u8("a", 1), u8("b", 1), u8("a", 1)},
		`tensor "\xff": the name is not valid UTF-8`:                                   {u8("\xff", 1)},
		`tensor "a": F32 [2] takes 8 bytes, got 4`:                                     {{Name: "a", DType: numeric.F32, Shape: []int{2}, Data: make([]byte, 4)}},
		`tensor "a": shape [-1] is too large`:                                          {{Name: "a", DType: numeric.F32, Shape: []int{-1}}},
		`tensor "a": cannot write the format "invalid"`:                                {{Name: "a"}},
		`tensor "w": 3 bytes of data, want 4`:                                          {giveBytes(3)},
		`tensor "w": at least 5 bytes of data, want 4`:                                 {giveBytes(5)},
		"tensor \"a\": the name is there twice\ntensor \"b\": the name is there twice": {u8("a", 1), u8("a", 1), u8("b", 0), u8("b", 0)},
		`tensor "w": boom`:                                                             {fails},
	} {
		if err := Write(io.Discard, sources, nil); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	if err := Write(io.Discard, nil, map[string]string{"a": "\xff"}); err == nil || err.Error() != `metadata "a": "\xff": not valid UTF-8` {
		t.Error(err)
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := WriteFile(path, []Source{{Name: "a", DType: numeric.U8, Shape: []int{2}, Data: []byte{1, 2}}}, nil); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := f.Tensor("a")
	// The open file keeps its contents while another takes its name.
	boom := errors.New("no space left")
	err = WriteFile(path, []Source{{Name: "a", DType: numeric.U8, Shape: []int{1}, Write: func(io.Writer) error { return boom }}}, nil)
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), `tensor "a"`) {
		t.Errorf("got %v", err)
	}
	if err := WriteFile(path, nil, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Data, []byte{1, 2}) {
		t.Errorf("data became %v", a.Data)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	missing := filepath.Join(path+".d", "x")
	if err := WriteFile(missing, nil, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
}

// Files of the reference writer come back byte for byte.
func TestReferenceFiles(t *testing.T) {
	root := sharedDir(t)
	paths, err := filepath.Glob(filepath.Join(root, "goldens", "*", "adapter_*", "*.safetensors"))
	if err != nil || len(paths) == 0 {
		t.Skip("no reference files in", root)
	}
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			t.Error(err)
			continue
		}
		var sources []Source
		for a := range f.All() {
			sources = append(sources, Source{Name: a.Name, DType: a.DType, Shape: a.Shape, Data: a.Data})
		}
		var buf bytes.Buffer
		if err := Write(&buf, sources, f.Metadata()); err != nil {
			t.Error(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf.Bytes(), want) {
			t.Errorf("%s: written again it is another file", path)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sharedDir finds the folder of larger reference data beside the repository.
func sharedDir(t *testing.T) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			shared := filepath.Join(dir, "..", "shared")
			if _, err := os.Stat(shared); err != nil {
				t.Skip("needs the reference data in ../shared")
			}
			return shared
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
