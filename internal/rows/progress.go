package rows

import (
	"context"
	"os"
)

// progress counts bytes, of all files that are read under a context.
type progress struct {
	read int64
	tell func(read int64)
}

type progressKey struct{}

// WithProgress returns a context under which tell is told, again and again, how many bytes of files have been read so far
// by Read, by Records and through Counted. It is called by whoever reads. Of Parquet some bytes are read twice.
func WithProgress(ctx context.Context, tell func(read int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, &progress{tell: tell})
}

// Advance counts n more bytes that were read by other means.
func Advance(ctx context.Context, n int64) {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok && n > 0 {
		p.read += n
		p.tell(p.read)
	}
}

// Counted returns a file of which all that is read is told to the context's progress.
func Counted(ctx context.Context, f *os.File) *CountedFile { return &CountedFile{ctx, f} }

// CountedFile is an io.Reader and an io.ReaderAt.
type CountedFile struct {
	ctx context.Context
	f   *os.File
}

func (c *CountedFile) Read(p []byte) (int, error) {
	n, err := c.f.Read(p)
	Advance(c.ctx, int64(n))
	return n, err
}

func (c *CountedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.f.ReadAt(p, off)
	Advance(c.ctx, int64(n))
	return n, err
}
