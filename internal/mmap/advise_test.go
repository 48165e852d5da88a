//go:build unix

package mmap

import (
	"os"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	m, _, page := mapped(t, 64)
	other, _, _ := mapped(t, 1)
	d := m.Data
	got := Merge([][]byte{d[40*page : 41*page], nil, d[5:9], make([]byte, 100), other.Data, d[9+page : 3*page], d[page : 2*page]})
	var ranges [][2]int
	for _, r := range got {
		if f, at := find(r); f == m {
			ranges = append(ranges, [2]int{at, at + len(r)})
		} else if f != other || len(r) != page {
			t.Errorf("a range of %d bytes of no file", len(r))
		}
	}
	want := [][2]int{{5, 3 * page}, {40 * page, 41 * page}}
	if len(got) != 3 || len(ranges) != 2 || ranges[0] != want[0] || ranges[1] != want[1] {
		t.Errorf("%v, want %v and another file", ranges, want)
	}
	if !Mapped(d[7:8]) || Mapped(make([]byte, 8)) || Mapped(nil) {
		t.Error("what is mapped is not told")
	}
}

// Bytes are the same whether they were brought in or dropped; what is gone from the file is an error.
func TestPopulateAndDrop(t *testing.T) {
	m, path, page := mapped(t, 8)
	for from := range 3 {
		part := m.Data[from*page+from : 6*page-from]
		for range 2 {
			if err := Populate(part); err != nil {
				t.Fatal(err)
			}
			Drop(part)
			Drop(part[:5])
		}
	}
	if got := sum(m.Data); got != 7*8*page {
		t.Errorf("the bytes add up to %d, want %d", got, 7*8*page)
	}
	heap := []byte{1, 2, 3}
	Drop(heap)
	if err := Populate(heap); err != nil || sum(heap) != 6 {
		t.Errorf("memory that is no file: %v, %v", heap, err)
	}
	if err := os.Truncate(path, int64(3*page)); err != nil {
		t.Fatal(err)
	}
	if err := Populate(m.Data[:3*page]); err != nil {
		t.Errorf("what is still there: %v", err)
	}
	if err := Populate(m.Data[page+5 : 7*page]); err == nil || !strings.HasPrefix(err.Error(), path+": byte ") || !strings.Contains(err.Error(), " is gone: the file was cut short") {
		t.Errorf("what is gone: %v", err)
	}
}
