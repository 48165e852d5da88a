package fingerprint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "abc")
	if err := os.WriteFile(path, []byte("abc"), 0o666); err != nil {
		t.Fatal(err)
	}
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4's example
	if got, err := File(path); got != want || err != nil {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	if _, err := File(path + ".not"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := File(filepath.Dir(path)); err == nil {
		t.Error("a directory has no sum")
	}
}

func TestTexts(t *testing.T) {
	seen := map[string][]string{}
	for _, texts := range [][]string{nil, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a\n1 b"}} {
		sum := Texts(texts...)
		if before, ok := seen[sum]; ok {
			t.Errorf("%q and %q have one sum", before, texts)
		}
		seen[sum] = texts
	}
}

func TestSample(t *testing.T) {
	sum := func(b []byte) string {
		h := sha256.New()
		if err := Sample(h, bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		return string(h.Sum(nil))
	}
	small := []byte("a small file is read whole")
	other := bytes.Clone(small)
	other[len(other)-1]++
	if sum(small) == sum(other) {
		t.Error("a small file's last byte does not count")
	}
	large := make([]byte, 1<<23)
	before := sum(large)
	for _, at := range []int{0, 1<<20 - 1, 1 << 22} {
		large[at] = 1
		if sum(large) == before {
			t.Errorf("byte %d does not count", at)
		}
		large[at] = 0
	}
}
