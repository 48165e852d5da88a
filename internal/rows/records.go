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

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
)

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
type Shape = jsoncut.Shape

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
		next, err := open(path, Counted(ctx, f), info.Size(), shape)
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

// open tells what a file is and returns what reads its records, one a call, io.EOF after the last.
func open(path string, src io.ReaderAt, size int64, shape Shape) (func() (Record, error), error) {
	r := bufio.NewReaderSize(io.NewSectionReader(src, 0, size), 1<<16)
	head, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if bytes.HasPrefix(head, []byte("PAR1")) {
		return openParquet(path, src, size)
	}
	if err := jsoncut.Text(r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
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
	c := jsoncut.New(path, r, shape)
	return func() (Record, error) { return record(c) }, nil
}

// record parses the next piece of JSON.
func record(c *jsoncut.Cutter) (Record, error) {
	p, err := c.Next()
	if err != nil {
		return Record{}, err
	}
	rec := Record{Place: p.Place, Key: p.Key}
	bad := func(err error) (Record, error) { return Record{}, &Error{Place: p.Place, Err: err} }
	if len(p.JSON) == 0 || p.JSON[0] != '{' {
		return bad(fmt.Errorf("expected a JSON object, got %s", abbreviate(p.JSON)))
	}
	rec.Fields, err = strictjson.ParseObject(p.JSON)
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

// abbreviate quotes the beginning of a text, for messages.
func abbreviate[T string | []byte](b T) string {
	const most = 60
	if len(b) <= most {
		return fmt.Sprintf("%q", string(b))
	}
	return fmt.Sprintf("%q...", strings.ToValidUTF8(string(b[:most]), ""))
}
