package weights

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// useCache sends everything that is converted into a file, and keeps the user's cache directory out of it. It returns
// that directory.
func useCache(t *testing.T) string {
	t.Helper()
	memoryLimit = 0
	t.Cleanup(func() { memoryLimit = MemoryLimit })
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("HOME", dir)
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// copyForm copies a folder of testdata/weights.
func copyForm(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(formPath(t, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// prepare opens and prepares a checkpoint and compares its values with those of the form in testdata.
func prepare(t *testing.T, dir, form string, o PrepareOptions) (c *Checkpoint, converted int64) {
	t.Helper()
	c = open(t, dir)
	o.Progress = func(done, total int64) {
		if done <= converted || done > total {
			t.Errorf("progress from %d to %d of %d", converted, done, total)
		}
		converted = done
	}
	want, err := c.Unprepared(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Prepare(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if converted != 0 && converted != want {
		t.Errorf("%d bytes converted, want %d", converted, want)
	}
	exact := open(t, formPath(t, form))
	for x := range c.All() {
		v := values(t, exact, x.Name)
		if x.DType == numeric.BF16 && form == "quantised" {
			for i := range v {
				v[i] = numeric.BF16ToF32(numeric.F32ToBF16(v[i]))
			}
		}
		if x.Data == nil || !slices.Equal(values(t, c, x.Name), v) {
			t.Fatalf("%s is not what it was", x.Name)
		}
	}
	return c, converted
}

// cacheOf is the one file of converted tensors; "" without one.
func cacheOf(c *Checkpoint) string { return strings.Join(c.Caches(), " and ") }

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCache(t *testing.T) {
	useCache(t)
	for _, form := range []string{"quantised", "meta-2", "strided", "f64"} {
		dir := copyForm(t, form)
		made, converted := prepare(t, dir, form, PrepareOptions{})
		if converted == 0 || filepath.Dir(cacheOf(made)) != filepath.Join(dir, ".biolora") {
			t.Errorf("%s: %d bytes converted into %q", form, converted, cacheOf(made))
		}
		found, converted := prepare(t, dir, form, PrepareOptions{})
		if converted != 0 || cacheOf(found) != cacheOf(made) {
			t.Errorf("%s: %d bytes were converted once more into %q", form, converted, cacheOf(found))
		}
		// The directory can be moved with its cache.
		moved := filepath.Join(t.TempDir(), "moved")
		if err := os.Rename(dir, moved); err != nil {
			t.Fatal(err)
		}
		if _, converted := prepare(t, moved, form, PrepareOptions{}); converted != 0 {
			t.Errorf("%s: converted once more where it was moved to", form)
		}
		if err := errors.Join(made.Close(), made.Unchanged(), made.Close()); err != nil {
			t.Error(err)
		}
	}
}

// What is prepared for float32 and for bfloat16 lies side by side.
func TestCachesOfBothFormats(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "quantised")
	exact, n1 := prepare(t, dir, "quantised", PrepareOptions{})
	rounded, n2 := prepare(t, dir, "quantised", PrepareOptions{DType: numeric.BF16})
	if n1 == 0 || n2 == 0 || n2 > n1*6/10 || cacheOf(exact) == cacheOf(rounded) || len(fileNames(t, filepath.Join(dir, ".biolora"))) != 2 {
		t.Errorf("%d bytes in %s, %d in %s", n1, cacheOf(exact), n2, cacheOf(rounded))
	}
	for _, o := range []PrepareOptions{{}, {DType: numeric.BF16}} {
		if _, n := prepare(t, dir, "quantised", o); n != 0 {
			t.Errorf("%v was made once more", o.DType)
		}
	}
}

// A cache that is not whole, or not of this checkpoint, is made anew.
func TestDamagedCache(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "quantised")
	made, want := prepare(t, dir, "quantised", PrepareOptions{})
	good, err := os.ReadFile(cacheOf(made))
	if err != nil {
		t.Fatal(err)
	}
	f, err := safetensors.Parse(good, "cache")
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := slices.Clone(good)
		b[at] ^= 1
		return b
	}
	damaged := map[string][]byte{
		"empty": {}, "cut": good[:len(good)/2], "cut by a byte": good[:len(good)-1], "longer": append(slices.Clone(good), 0),
		"first byte": flip(0), "a name": flip(slices.Index(good, '_')), "middle": flip(len(good) / 2), "last": flip(len(good) - 1),
		"zeros at the end": append(slices.Clone(good[:len(good)-5000]), make([]byte, 5000)...),
		"another key":      []byte(strings.Replace(string(good), f.Metadata()[cacheKeyName], strings.Repeat("0", 64), 1)),
	}
	for name, data := range damaged {
		if err := os.WriteFile(cacheOf(made), data, 0o666); err != nil {
			t.Fatal(err)
		}
		c, n := prepare(t, dir, "quantised", PrepareOptions{})
		now, err := os.ReadFile(cacheOf(c))
		if n != want || cacheOf(c) != cacheOf(made) || err != nil || string(now) != string(good) {
			t.Errorf("%s: %d bytes converted, want %d; the file is as it was: %v, %v", name, n, want, string(now) == string(good), err)
		}
	}
}

// A changed checkpoint gets another cache, and the old one goes. What others put there stays.
func TestStaleCache(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "quantised")
	before, _ := prepare(t, dir, "quantised", PrepareOptions{})
	prepare(t, dir, "quantised", PrepareOptions{DType: numeric.BF16})
	folder := filepath.Join(dir, ".biolora")
	prefix := strings.TrimSuffix(filepath.Base(cacheOf(before)), ".safetensors")
	prefix = prefix[:strings.LastIndex(prefix, "-")+1]
	for name, age := range map[string]time.Duration{"." + prefix + "1.tmp": 48 * time.Hour, "." + prefix + "2.tmp": 0, "mine.txt": 48 * time.Hour} {
		writeFile(t, folder, name, "x")
		old := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(folder, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "tiny.gguf"), later, later); err != nil {
		t.Fatal(err)
	}
	after, n := prepare(t, dir, "quantised", PrepareOptions{})
	if n == 0 || cacheOf(after) == cacheOf(before) {
		t.Errorf("%d bytes converted into %s", n, cacheOf(after))
	}
	names := fileNames(t, folder)
	want := []string{"." + prefix + "2.tmp", "mine.txt", filepath.Base(cacheOf(after))}
	if len(names) != 4 || slices.ContainsFunc(want, func(n string) bool { return !slices.Contains(names, n) }) {
		t.Errorf("there is %q, want %q and a cache as BF16", names, want)
	}
}

// Where the checkpoint's directory cannot be written to, the user's cache directory takes the file; a directory that is
// named comes before both.
func TestCachePlaces(t *testing.T) {
	user := useCache(t)
	dir := copyForm(t, "quantised")
	writeFile(t, dir, ".biolora", "in the way")
	c, _ := prepare(t, dir, "quantised", PrepareOptions{})
	if filepath.Dir(cacheOf(c)) != filepath.Join(user, "biolora") {
		t.Errorf("made in %s", cacheOf(c))
	}
	if _, n := prepare(t, dir, "quantised", PrepareOptions{}); n != 0 {
		t.Error("made once more")
	}
	other := copyForm(t, "quantised") // another checkpoint of the same names
	writeFile(t, other, ".biolora", "in the way")
	prepare(t, other, "quantised", PrepareOptions{})
	if names := fileNames(t, filepath.Join(user, "biolora")); len(names) != 2 {
		t.Errorf("there is %q, want a cache of each checkpoint", names)
	}
	named := filepath.Join(t.TempDir(), "a", "b")
	if c, _ := prepare(t, dir, "quantised", PrepareOptions{CacheDir: named}); filepath.Dir(cacheOf(c)) != named {
		t.Errorf("made in %s", cacheOf(c))
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, ".biolora"))
	t.Setenv("HOME", filepath.Join(dir, ".biolora"))
	err := open(t, dir).Prepare(context.Background(), PrepareOptions{})
	if err == nil || !strings.HasPrefix(err.Error(), "there is no place for the converted tensors: mkdir "+filepath.Join(dir, ".biolora")+": ") ||
		strings.Count(err.Error(), "\n") != 1 {
		t.Error(err)
	}
}

func TestCacheNeedsSpace(t *testing.T) {
	dir := t.TempDir()
	free, ok := freeBytes(dir)
	if !ok {
		t.Skip("this system does not say how much space is free")
	}
	p := place{dir, "weights-"}
	err := p.checkSpace([]safetensors.Source{{Name: "a", DType: numeric.F32, Shape: []int{1 << 20, 1 << 24}}})
	want := dir + ": the converted tensors take 70368744181760 bytes, "
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), " are free: make room, or name another directory for the cache") {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := p.checkSpace([]safetensors.Source{{Name: "a", DType: numeric.BF16, Shape: []int{1, 2}}}); err != nil || free == 0 {
		t.Error(err)
	}
}

// Whatever ends a conversion leaves nothing behind.
func TestBrokenOffConversion(t *testing.T) {
	useCache(t)
	t.Run("cancelled", func(t *testing.T) {
		dir := copyForm(t, "quantised")
		ctx, cancel := context.WithCancel(context.Background())
		err := open(t, dir).Prepare(ctx, PrepareOptions{Progress: func(int64, int64) { cancel() }})
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 0 {
			t.Errorf("left behind: %q", names)
		}
	})
	for name, limit := range map[string]int64{"into a file": 0, "into memory": MemoryLimit} {
		t.Run("changed meanwhile, "+name, func(t *testing.T) {
			memoryLimit = limit
			dir := copyForm(t, "quantised")
			file := filepath.Join(dir, "tiny.gguf")
			err := open(t, dir).Prepare(context.Background(), PrepareOptions{Progress: func(int64, int64) {
				later := time.Now().Add(time.Hour)
				if err := os.Chtimes(file, later, later); err != nil {
					t.Error(err)
				}
			}})
			if err == nil || !strings.Contains(err.Error(), file+" changed while it was in use") {
				t.Error(err)
			}
			if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 0 {
				t.Errorf("left behind: %q", names)
			}
		})
	}
	t.Run("too large for F32", func(t *testing.T) {
		memoryLimit = 0
		dir := t.TempDir()
		s := source("w", numeric.F64, []int{2, 2}, 1, 2, 3, 4)
		copy(s.Data[24:], []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x47}) // 2^128
		writeShard(t, dir, SingleFile, s)
		want := filepath.Join(dir, SingleFile) + ": tensor w: element 3 ([1 1] of [2 2]): 3.402823669209385e+38 does not fit F32"
		err := open(t, dir).Prepare(context.Background(), PrepareOptions{})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 0 {
			t.Errorf("left behind: %q", names)
		}
	})
}

// Several at once do no harm to one another.
func TestPreparedAtOnce(t *testing.T) {
	useCache(t)
	dir := copyForm(t, "quantised")
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			c, err := Open(dir)
			if err == nil {
				err = errors.Join(c.Prepare(context.Background(), PrepareOptions{}), c.Close())
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if _, n := prepare(t, dir, "quantised", PrepareOptions{}); n != 0 {
		t.Error("made once more")
	}
	if names := fileNames(t, filepath.Join(dir, ".biolora")); len(names) != 1 {
		t.Errorf("there is %q", names)
	}
}

// inOrder gives the pieces in their order and ends at the first error.
func TestInOrder(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 100} {
		var got []int
		err := inOrder(context.Background(), n, 1, func(buf []byte, i int) ([]byte, error) {
			buf[0] = byte(i)
			return buf, nil
		}, func(data []byte, i int) error {
			got = append(got, int(data[0]))
			return nil
		})
		if err != nil || len(got) != n || !slices.IsSorted(got) {
			t.Errorf("%d: %v, %v", n, got, err)
		}
	}
	boom := errors.New("boom")
	used := 0
	use := func([]byte, int) error { used++; return nil }
	err := inOrder(context.Background(), 100, 1, func(buf []byte, i int) ([]byte, error) {
		if i == 7 {
			return nil, boom
		}
		return buf, nil
	}, use)
	if err != boom || used != 7 {
		t.Errorf("%v after %d pieces", err, used)
	}
	err = inOrder(context.Background(), 100, 1, func(buf []byte, i int) ([]byte, error) { return buf, nil },
		func(_ []byte, i int) error {
			if i == 9 {
				return boom
			}
			return nil
		})
	if err != boom {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = inOrder(ctx, 1<<30, 1, func(buf []byte, i int) ([]byte, error) { return buf, nil },
		func([]byte, int) error { cancel(); return nil })
	if err != context.Canceled {
		t.Error(err)
	}
}
