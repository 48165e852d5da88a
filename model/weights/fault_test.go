//go:build unix

package weights

import (
	"context"
	"os"
	"strings"
	"testing"
)

// A checkpoint in any form whose files are cut short is an error wherever it is read, not the end of the process.
func TestFilesCutShort(t *testing.T) {
	ctx := context.Background()
	const gone = "is gone: the file was cut short while it was in use, from "
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			useCache(t)
			c := open(t, copyForm(t, name))
			if err := c.Unchanged(); err != nil {
				t.Fatal(err)
			}
			for _, file := range c.Files() {
				if err := os.Truncate(file, 0); err != nil {
					t.Fatal(err)
				}
			}
			check := func(what string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), c.Files()[0]) && !strings.Contains(err.Error(), c.Files()[len(c.Files())-1]) || !strings.Contains(err.Error(), gone) {
					t.Errorf("%s: %v", what, err)
				}
			}
			for x := range c.All() {
				check("Elements of "+x.Name, x.Elements(make([]float32, x.Len()), 0))
				check("CheckFinite of "+x.Name, x.CheckFinite())
			}
			check("Rewrite", rewrite(ctx, c, t.TempDir(), nil))
			if form.converted > 0 {
				check("Prepare, into a file", c.Prepare(ctx, PrepareOptions{CacheDir: t.TempDir()}))
				memoryLimit = MemoryLimit
				check("Prepare, into memory", c.Prepare(ctx, PrepareOptions{}))
			}
			err := c.Unchanged()
			for _, file := range c.Files() {
				if err == nil || !strings.Contains(err.Error(), file+" changed while it was in use: ") {
					t.Errorf("Unchanged of %s: %v", file, err)
				}
			}
		})
	}
}

// A merge of a checkpoint that changes under way ends in an error.
func TestChangedDuringRewrite(t *testing.T) {
	dir := copyForm(t, "base")
	c := open(t, dir)
	path := c.Files()[0]
	change := Change{Name: "model.norm.weight", Rows: func(dst []float32, from, to int) error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		if _, err := f.Write([]byte{0}); err != nil {
			return err
		}
		return f.Close()
	}}
	err := rewrite(context.Background(), c, t.TempDir(), []Change{change})
	if err == nil || !strings.HasPrefix(err.Error(), path+" changed while it was in use: 12736 bytes of ") || !strings.Contains(err.Error(), " then, 12737 bytes of ") {
		t.Error(err)
	}
}
