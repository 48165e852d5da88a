package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/rows"
)

// Where nothing can be drawn over, a line now and then says how much of the files is read, how fast, and what is left.
func TestReading(t *testing.T) {
	line := `{"instruction": "Say it.", "output": "` + strings.Repeat("it ", 3000) + `"}` + "\n"
	dir := write(t, map[string]string{"a.jsonl": strings.Repeat(line, 40), "b.jsonl": strings.Repeat(line, 40)})
	files := []string{filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "b.jsonl")}
	var out bytes.Buffer
	ctx, b := reading(t.Context(), &out, append(files, filepath.Join(dir, "absent.jsonl")))
	for i, file := range files {
		for _, err := range rows.Read(ctx, file) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 && out.Len() > 0 {
			t.Errorf("a line at once: %q", &out)
		}
		b.start, b.last = time.Now().Add(-time.Minute), time.Now().Add(-every) // the next piece is of the second file
	}
	b.set(1 << 30) // a footer that is read twice
	b.end()
	want := regexp.MustCompile(`^4\d\d of 723 kB read  \d+\.\d\d/s  left [\dm]+s\n723 of 723 kB read  \d+\.\d\d/s  left 0s\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("%q", &out)
	}
}
