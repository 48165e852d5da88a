package rows

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Progress grows with each file, in every format, to the size of all.
func TestProgress(t *testing.T) {
	dir := t.TempDir()
	const n = 5000
	for _, name := range []string{"a.jsonl", "a.json", "a.parquet"} {
		path := filepath.Join(dir, name)
		_, err := Write(path, func(yield func(Row, error) bool) {
			for i := range n {
				if !yield(Row{Instruction: "Say it.", Input: fmt.Sprint(i * i), Output: "It.", ID: fmt.Sprint(i)}, nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		var seen []int64
		ctx := WithProgress(t.Context(), func(read int64) { seen = append(seen, read) })
		half, rows := 0, 0
		for range 2 {
			for _, err := range Read(ctx, path) {
				if err != nil {
					t.Fatal(err)
				}
				if rows++; rows == n/2 {
					half = len(seen)
				}
			}
		}
		last := seen[len(seen)-1]
		if exact := name != "a.parquet"; rows != 2*n || last < 2*info.Size() || exact && last != 2*info.Size() {
			t.Errorf("%s: %d rows, %d bytes read, twice %d there", name, rows, last, info.Size())
		}
		if half == 0 || seen[half-1] >= last {
			t.Errorf("%s: all %d bytes are told when half of the rows are read", name, last)
		}
		for i := range seen[1:] {
			if seen[i+1] <= seen[i] {
				t.Fatalf("%s: %d after %d", name, seen[i+1], seen[i])
			}
		}
	}
	for _, err := range Read(t.Context(), filepath.Join(dir, "a.json")) { // without one nobody is told
		if err != nil {
			t.Fatal(err)
		}
	}
}
