package gguf

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
)

// rewrite is what a file becomes when all that it holds is written again.
func rewrite(t *testing.T, path string) []byte {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var metadata []KeyValue
	for _, k := range f.Keys() {
		v, _ := f.Value(k)
		metadata = append(metadata, KeyValue{k, v})
	}
	var sources []Source
	for x := range f.All() {
		s := Source{Name: x.Name, Type: x.Type, Shape: x.Shape, Data: x.Data}
		if len(sources)%2 == 1 {
			s.Data, s.Write = nil, func(w io.Writer) error {
				_, err := w.Write(x.Data[:3])
				_, err2 := w.Write(x.Data[3:])
				return errors.Join(err, err2)
			}
		}
		sources = append(sources, s)
	}
	var buf bytes.Buffer
	if err := Write(&buf, metadata, sources); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A file of the Python package gguf comes back byte for byte.
func TestWriteLikeReference(t *testing.T) {
	const path = "testdata/tiny.gguf"
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rewrite(t, path), want) {
		t.Error("written again it is another file")
	}
}

// A vocabulary of llama.cpp comes back too, but that its writer added no padding where no tensors follow.
func TestWriteVocabulary(t *testing.T) {
	path := golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-spm.gguf")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rewrite(t, path), aligned(want, 0)) {
		t.Error("written again it is another file")
	}
}

func TestWriteAlignment(t *testing.T) {
	var buf bytes.Buffer
	err := Write(&buf, []KeyValue{{alignmentKey, uint32(8)}}, []Source{
		{Name: "a", Type: I8, Shape: []int{3, 1}, Data: []byte{1, 2, 3}},
		{Name: "b", Type: F32, Data: []byte{4, 5, 6, 7}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := file(2, 1, alignmentKey, kindUint32, uint32(8), tensor("a", I8, 0, 1, 3), tensor("b", F32, 8),
		[]byte{0, 0, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 6, 7, 0, 0, 0, 0})
	if !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("got\n%q\nwant\n%q", buf.Bytes(), want)
	}
}

func TestWriteErrors(t *testing.T) {
	i8 := func(name string, n int) Source {
		return Source{Name: name, Type: I8, Shape: []int{n}, Data: make([]byte, n)}
	}
	giveBytes := func(n int) Source {
		s := i8("w", 4)
		s.Write = func(w io.Writer) error { _, err := w.Write(make([]byte, n)); return err }
		return s
	}
	boom := errors.New("boom")
	fails := i8("w", 4)
	fails.Write = func(io.Writer) error { return boom }
	huge := []int{1 << 22, 1 << 20, 1 << 20}
	deep := any([]uint8{})
	for range MaxDepth {
		deep = []any{deep}
	}
	for _, c := range []struct {
		metadata []KeyValue
		tensors  []Source
		want     string
	}{
		{nil, []Source{i8("a", 1), i8("b", 1), i8("a", 1)}, `tensor "a": the name is there twice`},
		{nil, []Source{i8("\xff", 1)}, `tensor "\xff": the name is not valid UTF-8`},
		{nil, []Source{i8(strings.Repeat("n", 64), 1)}, `tensor "` + strings.Repeat("n", 64) + `": the name has 64 bytes, at most 63 are allowed`},
		{nil, []Source{{Name: "a", Type: F32, Shape: []int{2}, Data: make([]byte, 4)}}, `tensor "a": F32 [2] takes 8 bytes, got 4`},
		{nil, []Source{{Name: "a", Type: F32, Shape: []int{1, 1, 1, 1, 1}, Data: make([]byte, 4)}}, `tensor "a": shape [1 1 1 1 1] has 5 dimensions, at most 4 are allowed`},
		{nil, []Source{{Name: "a", Type: F32, Shape: []int{-1}}}, `tensor "a": shape [-1]: each dimension must be at least 1`},
		{nil, []Source{i8("a", 0)}, `tensor "a": shape [0]: each dimension must be at least 1`},
		{nil, []Source{{Name: "a", Type: Q4_K, Shape: []int{2, 128}, Data: make([]byte, 144)}}, `tensor "a": rows of 128 elements are not whole blocks: Q4_K has 256 in each`},
		{nil, []Source{{Name: "a", Type: 5}}, `tensor "a": Q4_3 was taken out of the format; make the file again from its source`},
		{nil, []Source{{Name: "a", Type: I8, Shape: huge, Write: fails.Write}, {Name: "b", Type: I8, Shape: huge, Write: fails.Write}},
			`tensor "b": the file would be too large`},
		{nil, []Source{giveBytes(3)}, `tensor "w": 3 bytes of data, want 4`},
		{nil, []Source{giveBytes(5)}, `tensor "w": at least 5 bytes of data, want 4`},
		{nil, []Source{fails}, `tensor "w": boom`},
		{nil, make([]Source, MaxTensors+1), "65537 tensors, at most 65536 are allowed\n"},
		{make([]KeyValue, MaxKeys+1), nil, "65537 keys, at most 65536 are allowed\n"},
		{[]KeyValue{{"k", 1}}, nil, `key "k": a int cannot be written`},
		{[]KeyValue{{"k", nil}}, nil, `key "k": a nil cannot be written`},
		{[]KeyValue{{"k", map[string]string{}}}, nil, `key "k": a map[string]string cannot be written`},
		{[]KeyValue{{"k", []int{1}}}, nil, `key "k": a []int cannot be written`},
		{[]KeyValue{{"k", []any{[]int8{1}, "x"}}}, nil, `key "k": element 1: a string in an array of arrays`},
		{[]KeyValue{{"k", []any{[]any{nil}}}}, nil, `key "k": element 0: element 0: a nil cannot be written`},
		{[]KeyValue{{"k", deep}}, nil, `key "k": ` + strings.Repeat("element 0: ", 8) + `arrays are nested more than 8 deep`},
		{[]KeyValue{{"k\xff", true}}, nil, `key "k\xff": the name is not valid UTF-8`},
		{[]KeyValue{{strings.Repeat("k", 65536), true}}, nil, `key "` + strings.Repeat("k", 65536) + `": the name has 65536 bytes, at most 65535 are allowed`},
		{[]KeyValue{{alignmentKey, uint64(32)}}, nil, `key "general.alignment": want a uint32, got uint64`},
		{[]KeyValue{{alignmentKey, uint32(33)}}, nil, `key "general.alignment": an alignment of 33, want a power of two up to 1048576`},
		{[]KeyValue{{"k", true}, {"k", false}, {"l", 1.5}, {"m", 'x' + 0i}}, []Source{i8("a", 0)},
			"key \"k\": the key is there twice\nkey \"m\": a complex128 cannot be written\ntensor \"a\": shape [0]: each dimension must be at least 1"},
	} {
		err := Write(io.Discard, c.metadata, c.tensors)
		if err == nil || err.Error() != c.want && !(strings.HasSuffix(c.want, "\n") && strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
	}
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := WriteFile(path, nil, nil); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("no space left")
	err = WriteFile(path, nil, []Source{{Name: "a", Type: I8, Shape: []int{1}, Write: func(io.Writer) error { return boom }}})
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), `tensor "a"`) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file became %q, %v", after, err)
	}
	missing := filepath.Join(path+".d", "x")
	if err := WriteFile(missing, nil, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v", err)
	}
}
