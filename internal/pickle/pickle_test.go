package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/safetensors"
)

// expected is what make_pickle_cases.py says of a file: tensors, or an error.
type expected struct {
	tensors []Tensor
	err     string
}

func (e *expected) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		return json.Unmarshal(data, &e.err)
	}
	var list [][4]json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	for _, l := range list {
		var t Tensor
		var dtype, data string
		for i, p := range []any{&t.Name, &dtype, &t.Shape, &data} {
			if err := json.Unmarshal(l[i], p); err != nil {
				return err
			}
		}
		var err error
		if t.Data, err = hex.DecodeString(data); err != nil {
			return err
		}
		for _, d := range storageTypes {
			if d.String() == dtype {
				t.DType = d
			}
		}
		e.tensors = append(e.tensors, t)
	}
	return nil
}

func readExpected(tb testing.TB) map[string]expected {
	data, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		tb.Fatal(err)
	}
	var out map[string]expected
	if err := json.Unmarshal(data, &out); err != nil {
		tb.Fatal(err)
	}
	return out
}

func TestTorchFiles(t *testing.T) {
	for name, want := range readExpected(t) {
		path := filepath.Join("testdata", name)
		f, err := Open(path)
		if want.err != "" {
			if err == nil || !strings.Contains(err.Error(), want.err) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("%s: %v\nwant %s", name, err, want.err)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if len(f.Names()) != len(want.tensors) {
			t.Errorf("%s: tensors %q, want %d", name, f.Names(), len(want.tensors))
		}
		for i, w := range want.tensors {
			got, ok := f.Tensor(w.Name)
			if !ok || f.Names()[i] != w.Name {
				t.Errorf("%s: %q is not number %d", name, w.Name, i)
				continue
			}
			if got.DType != w.DType || !reflect.DeepEqual(got.Shape, w.Shape) || !bytes.Equal(got.Data, w.Data) {
				t.Errorf("%s: %q is %v %v %x\nwant %v %v %x", name, w.Name, got.DType, got.Shape, got.Data, w.DType, w.Shape, w.Data)
			}
		}
		if _, ok := f.Tensor("nothing"); ok {
			t.Error("a tensor that is not there")
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A contiguous tensor is a part of the file, not a copy.
func TestInPlace(t *testing.T) {
	data, err := os.ReadFile("testdata/zip.bin")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(data, "zip.bin")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := f.Tensor("rows")
	before := bytes.Clone(a.Data)
	for i := range data {
		data[i] ^= 0xff
	}
	if bytes.Equal(a.Data, before) {
		t.Error("the data was copied")
	}
}

// Every shortened file is an error, or lost nothing but zip's own end.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"zip.bin", "legacy.bin"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(data); n += 1 + n/200 {
			if _, err := Parse(data[:n], name); err == nil {
				t.Errorf("%s: accepted with %d of %d bytes", name, n, len(data))
			}
		}
	}
}

// pack makes a zip file of a program and its storages.
func pack(tb testing.TB, program string, records map[string]string) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	put := func(name, data string) {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := f.Write([]byte(data)); err != nil {
			tb.Fatal(err)
		}
	}
	put("x/data.pkl", program)
	for name, data := range records {
		put("x/"+name, data)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// program is a dictionary of one tensor, in protocol 0.
func program(storage, offset, shape, stride string) string {
	return "(dS'a'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\n" + storage + "tQ" + offset + "(" + shape + "t(" + stride + "tI00\nNtRs."
}

func TestHostile(t *testing.T) {
	const float4 = "FloatStorage\nS'0'\nS'cpu'\nI4\n"
	sixteen := map[string]string{"data/0": strings.Repeat("\x00", 16)}
	ok := pack(t, program(float4, "I0\n", "I4\n", "I1\n"), sixteen)
	if _, err := Parse(ok, "x"); err != nil {
		t.Fatal(err)
	}
	big := func(n int) string { return fmt.Sprintf("FloatStorage\nS'0'\nS'cpu'\nI%d\n", n) }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "the file is empty"},
		"lfs":               {[]byte("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"},
		"text":              {[]byte("hello, this is not a pickle\n"), "neither a zip nor the old format of torch.save"},
		"zip of nothing":    {[]byte("PK\x05\x06" + strings.Repeat("\x00", 18)), "without data.pkl"},
		"cut zip":           {ok[:len(ok)-30], "cut off"},
		"big-endian":        {pack(t, program(float4, "I0\n", "I4\n", "I1\n"), map[string]string{"data/0": strings.Repeat("\x00", 16), "byteorder": "big"}), `byte order "big"`},
		"no record":         {pack(t, program(float4, "I0\n", "I4\n", "I1\n"), nil), `record "data/0" is missing`},
		"short record":      {pack(t, program(float4, "I0\n", "I4\n", "I1\n"), map[string]string{"data/0": "123"}), `record "data/0" has 3 bytes, want 16 for 4 elements of F32`},
		"endless storage":   {pack(t, program(big(1<<50), "I0\n", "I4\n", "I1\n"), sixteen), "elements"},
		"negative storage":  {pack(t, program(big(-1), "I0\n", "I4\n", "I1\n"), sixteen), "-1 elements"},
		"beyond":            {pack(t, program(float4, "I1\n", "I4\n", "I1\n"), sixteen), "reaches beyond storage"},
		"offset":            {pack(t, program(float4, "I5\n", "I0\n", "I1\n"), sixteen), "a tensor at 5 of storage"},
		"negative offset":   {pack(t, program(float4, "I-1\n", "I4\n", "I1\n"), sixteen), "a tensor at -1"},
		"expanded":          {pack(t, program(float4, "I0\n", "I1000000000\n", "I0\n"), sixteen), "shape [1000000000] over storage"},
		"product overflows": {pack(t, program(float4, "I0\n", "I281474976710656\nI281474976710656\n", "I0\nI0\n"), sixteen), "over storage"},
		"stride overflows":  {pack(t, program(float4, "I0\n", "I2\nI2\n", "I281474976710656\nI281474976710656\n"), sixteen), "reaches beyond"},
		"negative stride":   {pack(t, program(float4, "I3\n", "I4\n", "I-1\n"), sixteen), "with -1 in it"},
		"stride missing":    {pack(t, program(float4, "I0\n", "I2\nI2\n", "I1\n"), sixteen), "2 dimensions with 1 strides"},
		"no storage":        {pack(t, "(dS'a'\nctorch._utils\n_rebuild_tensor_v2\n(NI0\n(I1\nt(I1\ntI00\nNtRs.", nil), "a tensor of a None"},
		"other storage":     {pack(t, program("QInt8Storage\nS'0'\nS'cpu'\nI4\n", "I0\n", "I4\n", "I1\n"), sixteen), "refused: torch.QInt8Storage"},
		"eval":              {pack(t, "c__builtin__\neval\n(S'1'\ntR.", nil), "refused: __builtin__.eval"},
		"inst":              {pack(t, "(S'true'\nios\nsystem\n.", nil), "refused: os.system"},
		"escape":            {pack(t, "c\x1b[2Jos\nsystem\n.", nil), `refused: \x1b[2Jos.system`},
		"object":            {pack(t, "c__builtin__\nobject\n)\x81.", nil), "no arguments"},
		"extension":         {pack(t, "\x80\x02\x82\x01.", nil), "refused: instruction EXT1"},
		"long string":       {pack(t, "\x80\x02X\xff\xff\xff\x7f.", nil), "with 2147483647 bytes"},
		"longer string":     {pack(t, "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", nil), "at most 16384"},
		"long integer":      {pack(t, "\x80\x02\x8b\xff\xff\xff\x7f.", nil), "at most 64"},
		"empty integer":     {pack(t, "\x80\x02\x8a\x00.", nil), "broken pickle"},
		"frame":             {pack(t, "\x80\x04\x95\xff\xff\xff\x00\x00\x00\x00\x00N.", nil), "at most"},
		"no stop":           {pack(t, "\x80\x02N", nil), "without a STOP"},
		"odd dictionary":    {pack(t, "(I1\nd.", nil), "broken pickle"},
		"unhashable":        {pack(t, "ccollections\nOrderedDict\n(tR\x8e\x01\x00\x00\x00\x00\x00\x00\x00xNs.", nil), "broken pickle"},
		"empty stack":       {pack(t, ".", nil), "stack is empty"},
		"marks":             {pack(t, strings.Repeat("(", maxContainers+2)+".", nil), "too long"},
		"number key":        {pack(t, "(dI1\nNs.", nil), "a 1 among its names"},
		"itself":            {pack(t, "(dp0\nS'a'\ng0\ns.", nil), `"a" is a dictionary`},
		"not a dictionary":  {pack(t, "I1\n.", nil), "a 1 was saved"},
	} {
		_, err := Parse(c.data, "file")
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "file: ") {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

func TestTwice(t *testing.T) {
	one := program("FloatStorage\nS'0'\nS'cpu'\nI4\n", "I0\n", "I4\n", "I1\n")
	twice := strings.TrimSuffix(one, ".") + strings.TrimPrefix(one, "(d")
	_, err := Parse(pack(t, twice, map[string]string{"data/0": strings.Repeat("\x00", 16)}), "x")
	if err == nil || !strings.Contains(err.Error(), `tensor "a" is there twice`) {
		t.Error(err)
	}
}

func TestNotAFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(dir, "a.bin")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "a.bin") {
		t.Error(err)
	}
}

// A real checkpoint holds the same as its safetensors twin.
func TestRealCheckpoint(t *testing.T) {
	dir := golden.Shared(t, "models", "stories260K")
	f, err := Open(filepath.Join(dir, "pytorch_model.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if len(f.Names()) != g.Len() {
		t.Errorf("%d tensors, want %d", len(f.Names()), g.Len())
	}
	for want := range g.All() {
		got, _ := f.Tensor(want.Name)
		if got.DType != want.DType || !reflect.DeepEqual(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("%s differs: %v %v, want %v %v", want.Name, got.DType, got.Shape, want.DType, want.Shape)
		}
	}
}

func TestMetaCheckpoints(t *testing.T) {
	dir := golden.Shared(t, "models", "meta-format")
	for file, want := range map[string]string{"tiny_fair_checkpoint.pt": "tok_embeddings.weight", "tiny_state_dict_with_one_key.pt": "test_key"} {
		f, err := Open(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Names()[0] != want {
			t.Errorf("%s: %q", file, f.Names())
		}
		f.Close()
	}
}

func FuzzParse(f *testing.F) {
	for name := range readExpected(f) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		check(t, data)
	})
}

// FuzzProgram puts the pickle alone in the fuzzer's hands.
func FuzzProgram(f *testing.F) {
	f.Add([]byte(program("FloatStorage\nS'0'\nS'cpu'\nI4\n", "I0\n", "I4\n", "I1\n")))
	f.Add([]byte(program("HalfStorage\nS'0'\nS'cpu'\nI8\n", "I0\n", "I2\nI3\n", "I1\nI2\n")))
	for name := range readExpected(f) {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		if r, err := zip.NewReader(bytes.NewReader(data), int64(len(data))); err == nil {
			a := &archive{data: data, prefix: "archive/", records: map[string]*zip.File{}}
			for _, e := range r.File {
				a.records[e.Name] = e
			}
			if p, err := a.record("data.pkl"); err == nil {
				f.Add(p)
			}
		}
	}
	for _, form := range forms {
		f.Add([]byte(form.naming("os", "system") + form.use))
	}
	records := map[string]string{}
	for i := range 8 {
		records[fmt.Sprintf("data/%d", i)] = strings.Repeat("x", 96)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		check(t, pack(t, string(data), records))
	})
}

func check(t *testing.T, data []byte) {
	var file *File
	var err error
	hostile.Bounded(t, len(data), perByte, func() { file, err = Parse(data, "name.bin") })
	if err != nil {
		if len(err.Error()) > 1000 {
			t.Fatalf("a message of %d bytes: %.2000v", len(err.Error()), err)
		}
		if !strings.HasPrefix(err.Error(), "name.bin: ") {
			t.Fatalf("the file is not named: %v", err)
		}
		return
	}
	for _, name := range file.Names() {
		v, ok := file.Tensor(name)
		if !ok {
			t.Fatalf("no tensor %q", name)
		}
		n := v.DType.Size()
		for _, d := range v.Shape {
			n *= d
		}
		if len(v.Data) != n || n > len(data) {
			t.Fatalf("%q of %v %v has %d bytes of %d", name, v.DType, v.Shape, len(v.Data), len(data))
		}
	}
}
