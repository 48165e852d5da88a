package rows

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
)

// maxRecord bounds the memory that one record may take, in bytes of the file; no text of a corpus comes near it.
const maxRecord = 64 << 20

// Record is one record of a file.
type Record struct {
	Place
	Fields *strictjson.Object
	// Key is the record's name in the object that the file is (Shape.Keyed), or empty.
	Key string

	parquet bool
}

// Names lists the record's fields, for messages.
func (r *Record) Names() string {
	const most = 12
	if len(r.Fields.Keys) == 0 {
		return "no fields"
	}
	var names []string
	for _, k := range r.Fields.Keys[:min(most, len(r.Fields.Keys))] {
		if len(k) > 40 {
			k = strings.ToValidUTF8(k[:40], "") + "..."
		}
		names = append(names, fmt.Sprintf("%q", k))
	}
	if more := len(r.Fields.Keys) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Shape says where the records of a JSON file are whose text begins with a brace and whose name does not end in .jsonl or
// .ndjson. The zero Shape is JSON Lines. Other files have their records where the package comment says.
type Shape struct {
	Under string // in the array that the object has under this key
	Keyed bool   // the object's values, each named by its key
}

// Records reads the records of a file, of whatever fields.
func Records(ctx context.Context, path string, shape Shape) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		f, err := regular.Open(path)
		if err != nil {
			yield(Record{}, err)
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			yield(Record{}, err)
			return
		}
		next, err := open(path, f, info.Size(), shape)
		if err != nil {
			yield(Record{}, err)
			return
		}
		drain(ctx, next, yield)
	}
}

// drain yields what next returns, up to its end or an error that is not one record's.
func drain(ctx context.Context, next func() (Record, error), yield func(Record, error) bool) {
	for {
		if err := ctx.Err(); err != nil {
			yield(Record{}, err)
			return
		}
		rec, err := next()
		if err == io.EOF {
			return
		}
		var bad *Error
		if !yield(rec, err) || err != nil && !errors.As(err, &bad) {
			return
		}
	}
}

// foreign are files that people take for rows, by their first bytes.
var foreign = []struct{ begins, is string }{
	{"\xFF\xFE\x00\x00", "the file is UTF-32; it must be UTF-8"},
	{"\xFF\xFE", "the file is UTF-16; it must be UTF-8"},
	{"\xFE\xFF", "the file is UTF-16; it must be UTF-8"},
	{"\x1F\x8B", "the file is compressed with gzip; unpack it first"},
	{"\x28\xB5\x2F\xFD", "the file is compressed with zstd; unpack it first"},
	{"\xFD7zX", "the file is compressed with xz; unpack it first"},
	{"BZh", "the file is compressed with bzip2; unpack it first"},
	{"PK\x03\x04", "the file is a zip archive (or a spreadsheet); unpack it or export it as CSV first"},
	{"ARRO", "the file is Arrow; export it as Parquet or JSON Lines first"},
	{"version https://git-lfs", "this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull"},
}

// open tells what a file is and returns what reads its records, one a call, io.EOF after the last.
func open(path string, src io.ReaderAt, size int64, shape Shape) (func() (Record, error), error) {
	r := bufio.NewReaderSize(io.NewSectionReader(src, 0, size), 1<<16)
	head, err := r.Peek(32)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, is := range foreign {
		if bytes.HasPrefix(head, []byte(is.begins)) {
			return nil, fmt.Errorf("%s: %s", path, is.is)
		}
	}
	if bytes.HasPrefix(head, []byte("PAR1")) {
		return openParquet(path, src, size)
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, fmt.Errorf("%s: the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8", path)
	}
	if bytes.HasPrefix(head, []byte("\xEF\xBB\xBF")) {
		r.Discard(3)
	}
	ext := strings.ToLower(filepath.Ext(path))
	switch ext {
	case ".csv":
		return newTable(path, r, ',').next, nil
	case ".tsv", ".tab":
		return newTable(path, r, '\t').next, nil
	case ".jsonl", ".ndjson":
		shape = Shape{}
	}
	return newCutter(path, r, shape).record, nil
}

// record parses the next piece of JSON.
func (c *cutter) record() (Record, error) {
	p, err := c.next()
	if err != nil {
		return Record{}, err
	}
	rec := Record{Place: p.Place, Key: p.key}
	bad := func(err error) (Record, error) { return Record{}, &Error{p.Place, err} }
	if i := invalidAt(p.json); i >= 0 {
		return bad(fmt.Errorf("invalid UTF-8 at byte %d of the row", i))
	}
	if len(p.json) == 0 || p.json[0] != '{' {
		return bad(fmt.Errorf("expected a JSON object, got %s", abbreviate(p.json)))
	}
	rec.Fields, err = strictjson.ParseObject(p.json)
	var at *strictjson.Error
	if errors.As(err, &at) && at.Line > 1 {
		return bad(fmt.Errorf("line %d, byte %d of the row: %s", p.Line+at.Line-1, at.Offset, at.Msg))
	} else if errors.As(err, &at) {
		return bad(fmt.Errorf("byte %d of the row: %s", at.Offset, at.Msg))
	} else if err != nil {
		return bad(err)
	}
	return rec, nil
}

// invalidAt is where the first byte is that is not UTF-8, or -1.
func invalidAt(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return -1
}

// abbreviate quotes the beginning of a text, for messages.
func abbreviate[T string | []byte](b T) string {
	const most = 60
	if len(b) <= most {
		return fmt.Sprintf("%q", string(b))
	}
	return fmt.Sprintf("%q...", strings.ToValidUTF8(string(b[:most]), ""))
}
