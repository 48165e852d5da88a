package weights

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/safetensors"
)

// linears are the matrices of a checkpoint's layers.
func linears(c *Checkpoint) (names []string) {
	for _, name := range c.Names() {
		if strings.HasSuffix(name, "_proj.weight") {
			names = append(names, name)
		}
	}
	return names
}

func encoded(t *testing.T, f quant.Format, values []float32, shape []int) []byte {
	t.Helper()
	var b bytes.Buffer
	err := quant.Encode(context.Background(), &b, f, shape[0], shape[1], 1, func(dst []float32, from, to int) error {
		copy(dst, values[from*shape[1]:to*shape[1]])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkQuantised compares a checkpoint that was prepared with one that was not.
func checkQuantised(t *testing.T, c, plain *Checkpoint, f quant.Format) {
	t.Helper()
	names := linears(plain)
	for x := range c.All() {
		v := values(t, plain, x.Name)
		if !slices.Contains(names, x.Name) {
			if x.Quant != quant.None || !slices.Equal(values(t, c, x.Name), v) {
				t.Fatalf("%s is %v, or not what it was", x.Name, x.Quant)
			}
			continue
		}
		codes := encoded(t, f, v, x.Shape)
		if x.Quant != f || x.Data != nil || x.DType != numeric.F32 || !bytes.Equal(x.Codes, codes) {
			t.Fatalf("%s is not its %v", x.Name, f)
		}
		m, err := quant.Open(f, x.Shape[0], x.Shape[1], codes)
		if err == nil {
			err = m.Elements(v, 0)
		}
		if err == nil {
			err = x.CheckFinite()
		}
		if err != nil || !slices.Equal(values(t, c, x.Name), v) {
			t.Fatalf("%s has not the values of its codes: %v", x.Name, err)
		}
		part := make([]float32, 3) // that crosses rows and blocks
		if err := x.Elements(part, 62); err != nil || !slices.Equal(part, v[62:65]) {
			t.Fatalf("%s: elements from 62 are %v, want %v: %v", x.Name, part, v[62:65], err)
		}
	}
}

// Every form becomes the same codes, in memory as in a file that is found again. What else has to be converted has a file
// of its own.
func TestQuantise(t *testing.T) {
	for _, inMemory := range []bool{true, false} {
		useCache(t)
		if inMemory {
			memoryLimit = MemoryLimit
		}
		for _, form := range []string{"base", "sharded", "zip", "meta-2", "strided", "f64", "gguf-f16", "quantised"} {
			for _, f := range []quant.Format{quant.NF4, quant.Int8} {
				dir := copyForm(t, form)
				plain := open(t, dir)
				o := PrepareOptions{Quant: f, Quantised: linears(plain)}
				files := 1 // what is quantised
				if need, err := plain.Unprepared(PrepareOptions{Names: slices.DeleteFunc(plain.Names(), func(n string) bool { return slices.Contains(o.Quantised, n) })}); err != nil || need > 0 {
					files++
				}
				if inMemory {
					files = 0
				}
				for pass := range 3 {
					c, converted := open(t, dir), int64(0)
					o.Progress = func(done, total int64) { converted = done }
					o.Verify = pass == 2
					want, err := c.Unprepared(o)
					if err == nil {
						err = c.Prepare(context.Background(), o)
					}
					if err == nil {
						err = c.Prepare(context.Background(), o) // nothing more
					}
					if err != nil {
						t.Fatalf("%s, %v: %v", form, f, err)
					}
					checkQuantised(t, c, plain, f)
					if found := pass == 1 && !inMemory; found && converted != 0 || !found && converted != want {
						t.Errorf("%s, %v, pass %d: %d bytes were converted of %d", form, f, pass, converted, want)
					}
					if len(c.Caches()) != files || c.Verified() != (pass == 2 && !inMemory) || len(c.Warnings()) != len(plain.Warnings()) {
						t.Errorf("%s, %v, pass %d: kept in %q, verified: %v, warnings %q", form, f, pass, c.Caches(), c.Verified(), c.Warnings())
					}
					if held := c.Held(); inMemory != (held == want) || !inMemory && held != 0 {
						t.Errorf("%s, %v: %d bytes are held, of %d", form, f, held, want)
					}
				}
			}
		}
	}
}

// A quantised matrix does not depend on how the others are computed with: its file is found whatever they become.
func TestQuantisedFileIsShared(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "quantised")
	caches := func(o PrepareOptions) []string {
		c := open(t, dir)
		o.Quant, o.Quantised = quant.NF4, linears(c)
		if err := c.Prepare(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		return c.Caches()
	}
	exact, rounded := caches(PrepareOptions{}), caches(PrepareOptions{DType: numeric.BF16})
	alone := caches(PrepareOptions{Names: linears(open(t, dir))})
	if len(exact) != 2 || len(rounded) != 2 || exact[0] == rounded[0] || exact[1] != rounded[1] || !slices.Equal(alone, exact[1:]) {
		t.Errorf("kept in %q, as BF16 in %q, alone in %q", exact, rounded, alone)
	}
	if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 3 {
		t.Errorf("there is %q", names)
	}
}

// large is a checkpoint whose matrix "w" has codes of many pages.
func large(t *testing.T) string {
	r := rand.New(rand.NewPCG(3, 4))
	v := make([]float32, 512*1031)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	dir := t.TempDir()
	writeShard(t, dir, SingleFile, source("w", numeric.BF16, []int{512, 1031}, v...), source("norm", numeric.F32, []int{2}, 1, 2))
	return dir
}

// Damage that samples miss is found by Verify, told, and mended; damage in a sample is found at once.
func TestVerify(t *testing.T) {
	useCache(t)
	dir := large(t)
	ctx := context.Background()
	o := PrepareOptions{Quant: quant.Int8, Quantised: []string{"w"}}
	get := func(verify bool) (c *Checkpoint, converted int64) {
		c = open(t, dir)
		o := o
		o.Verify, o.Progress = verify, func(done, _ int64) { converted = done }
		if err := c.Prepare(ctx, o); err != nil {
			t.Fatal(err)
		}
		return c, converted
	}
	made, all := get(false)
	path := cacheOf(made)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	x, _ := made.Tensor("w")
	x.Codes = slices.Clone(x.Codes) // the file is written to in place
	begin := bytes.Index(good, x.Codes[:1000])
	damage := func(at int) {
		b := slices.Clone(good)
		b[begin+at] ^= 8
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range []int{0, len(x.Codes) / sumPage / 2, len(x.Codes) / sumPage} {
		damage(page*sumPage + 5)
		if c, n := get(false); n != all || len(c.Warnings()) != 0 {
			t.Errorf("damage in page %d: %d bytes were made, want %d; %q", page, n, all, c.Warnings())
		}
	}
	const unseen = 3*sumPage + 17
	damage(unseen)
	c, n := get(false)
	if y, _ := c.Tensor("w"); n != 0 || y.Codes[unseen] != x.Codes[unseen]^8 {
		t.Error("a sample is of all of it")
	}
	c, n = get(true)
	want := path + " is not what the checkpoint gives, and was made anew: tensor w: byte 49169 of 560864: it differs"
	if y, _ := c.Tensor("w"); n != all || c.Verified() || !bytes.Equal(y.Codes, x.Codes) || len(c.Warnings()) != 1 || c.Warnings()[0] != want {
		t.Errorf("%d bytes were made, want %d; warnings %q, want %q", n, all, c.Warnings(), want)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, good) {
		t.Errorf("the file was not mended: %v", err)
	}
	if c, n := get(true); n != all || !c.Verified() {
		t.Errorf("%d bytes were compared, verified %v", n, c.Verified())
	}
	// The checkpoint may have changed where no sample is, and kept its time.
	file := filepath.Join(dir, SingleFile)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	size := len(data)
	if size >= 2<<20 {
		t.Fatal("samples leave something out")
	}
	data[size/2] ^= 1
	if err := errors.Join(os.WriteFile(file, data, 0o666), os.Chtimes(file, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	if c, n := get(false); n != all || cacheOf(c) == path { // of so small a file the samples are all
		t.Errorf("a changed checkpoint: %d bytes were made, in %s", n, cacheOf(c))
	}
}

// Where something comes between, nothing is left behind, and the message says what.
func TestQuantiseErrors(t *testing.T) {
	useCache(t)
	nan := float32(math.NaN())
	dir := t.TempDir()
	v := make([]float32, 70*3)
	v[200] = nan
	writeShard(t, dir, SingleFile, source("fine", numeric.F32, []int{3, 2}, 1, 2, 3, 4, 5, 6), source("w", numeric.F32, []int{3, 70}, v...),
		source("vector", numeric.F32, []int{2}, 1, 2), source("empty", numeric.F32, []int{0, 4}),
		safetensors.Source{Name: "ids", DType: numeric.I64, Shape: []int{1, 1}, Data: make([]byte, 8)},
		source("wide", numeric.F64, []int{1, 2}, 1, 2))
	file := filepath.Join(dir, SingleFile) + ": tensor "
	for name, want := range map[string]string{
		"w":      file + "w: element 200 ([2 60] of [3 70]) is NaN",
		"vector": file + "vector: F32 [2] cannot be quantised, want a matrix of floating point",
		"ids":    file + "ids: I64 [1 1] cannot be quantised, want a matrix of floating point",
		"gone":   dir + ": there is no tensor gone to quantise",
		"empty":  file + "empty: a matrix [0, 4], want at least one row and column",
	} {
		for _, limit := range []int64{0, MemoryLimit} {
			memoryLimit = limit
			err := open(t, dir).Prepare(context.Background(), PrepareOptions{Quant: quant.NF4, Quantised: []string{name}, Names: []string{}})
			if err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
	err := open(t, dir).Prepare(context.Background(), PrepareOptions{Quant: 9, Quantised: []string{"fine", "w"}, Names: []string{}})
	if err == nil || !strings.HasPrefix(err.Error(), file+"fine: Format(9) is no quantised format\n") {
		t.Error(err)
	}
	memoryLimit = 0
	big := large(t)
	for name, during := range map[string]func(cancel func()){
		"cancelled": func(cancel func()) { cancel() },
		"changed meanwhile": func(func()) {
			later := time.Now().Add(time.Hour)
			if err := os.Chtimes(filepath.Join(big, SingleFile), later, later); err != nil {
				t.Error(err)
			}
		},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		err := open(t, big).Prepare(ctx, PrepareOptions{Quant: quant.NF4, Quantised: []string{"w"}, Progress: func(int64, int64) { during(cancel) }})
		if name == "cancelled" && !errors.Is(err, context.Canceled) || name != "cancelled" && (err == nil || !strings.Contains(err.Error(), " changed while it was in use")) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	for _, d := range []string{dir, big} {
		if names := fileNames(t, filepath.Join(d, ".biolora")); len(names) != 0 {
			t.Errorf("left behind: %q", names)
		}
	}
}

// A place without room is passed over.
func TestQuantiseNeedsRoom(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	if _, ok := freeBytes(a); !ok {
		t.Skip("this system does not say how much space is free")
	}
	s := store{places: []place{{a, "x-"}, {b, "x-"}}}
	_, err := s.writable([]safetensors.Source{{Name: "w", DType: numeric.U8, Shape: []int{1 << 50}}})
	if err == nil || strings.Count(err.Error(), ": the converted tensors take 1125899906846720 bytes, ") != 2 ||
		!strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Error(err)
	}
}

// Several at once do no harm to one another.
func TestQuantisedAtOnce(t *testing.T) {
	useCache(t)
	dir := large(t)
	errs := make([]error, 6)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			c, err := Open(dir)
			if err == nil {
				err = errors.Join(c.Prepare(context.Background(), PrepareOptions{Quant: quant.NF4, Quantised: []string{"w"}, Verify: i%2 == 0}), c.Unchanged(), c.Close())
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 1 {
		t.Errorf("there is %q", names)
	}
}

// A copy has the values of the codes, in the formats that the matrices had.
func TestRewriteQuantised(t *testing.T) {
	for form, want := range map[string]numeric.DType{"base": numeric.BF16, "f64": numeric.F64, "gguf-f16": numeric.F16, "quantised": numeric.BF16} {
		c := open(t, copyForm(t, form))
		names := linears(c)
		if x, _ := c.Tensor(names[0]); form == "base" {
			want = x.DType
		}
		if err := c.Prepare(context.Background(), PrepareOptions{Quant: quant.NF4, Quantised: names, Names: names}); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		if err := rewrite(context.Background(), c, out, nil); err != nil {
			t.Fatal(err)
		}
		copied := open(t, out)
		for _, name := range names {
			x, _ := copied.Tensor(name)
			v, got := values(t, c, name), values(t, copied, name)
			rounded := make([]byte, len(v)*want.Size())
			encode(rounded, want, v)
			decode(v, want, rounded)
			if x.DType != want || !slices.Equal(got, v) {
				t.Errorf("%s: %s is %v, want %v, or has other values", form, name, x.DType, want)
			}
		}
	}
}

// A scale that is not finite is named with the file that it is in.
func TestCodedCheckFinite(t *testing.T) {
	v := make([]float32, 3*64)
	codes := encoded(t, quant.Int8, v, []int{3, 64})
	copy(codes[len(codes)-4:], []byte{0, 0, 0x80, 0x7f})
	m, err := quant.Open(quant.Int8, 3, 64, codes)
	if err != nil {
		t.Fatal(err)
	}
	x := Tensor{Name: "w", File: "model.safetensors", DType: numeric.F32, Shape: []int{3, 64}, Quant: quant.Int8, Codes: codes, layout: &coded{m, "cache.safetensors"}}
	want := "model.safetensors: tensor w: in cache.safetensors: the scale of block 2, elements from 128 on, is +Inf"
	if err := x.CheckFinite(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestDescribeCache(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "meta-2")
	c := open(t, dir)
	if err := c.Prepare(context.Background(), PrepareOptions{Quant: quant.NF4, Quantised: linears(c)}); err != nil {
		t.Fatal(err)
	}
	for i, what := range []string{"converted for arithmetic", "quantised to nf4"} {
		f, err := safetensors.Open(c.Caches()[i])
		if err != nil {
			t.Fatal(err)
		}
		if holds, ok := DescribeCache(f.Metadata()); !ok || holds != "tensors of consolidated.00.pth, consolidated.01.pth, "+what {
			t.Errorf("%s holds %q, %v", f.Path(), holds, ok)
		}
		f.Close()
	}
	if _, ok := DescribeCache(map[string]string{"format": "pt"}); ok {
		t.Error("anything is a cache")
	}
}

// BenchmarkQuantise is a matrix of 7B's width: what is read is bf16.
func BenchmarkQuantise(b *testing.B) {
	data := make([]byte, 2*4096*11008)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(data); i += 2 {
		bits := numeric.F32ToBF16(float32(r.NormFloat64()))
		data[i], data[i+1] = byte(bits), byte(bits>>8)
	}
	t := Tensor{Name: "w", DType: numeric.BF16, Shape: []int{11008, 4096}, Data: data}
	for _, f := range []quant.Format{quant.NF4, quant.Int8} {
		b.Run(f.String(), func(b *testing.B) {
			j := job{Tensor: t}
			if err := j.quantise(f); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				w := &sums{list: make([]byte, 0, 4*pages(j.size))}
				if err := j.write(context.Background(), w, &progress{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
