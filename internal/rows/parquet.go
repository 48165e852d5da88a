package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/strictjson"
)

// batch is how many rows of a Parquet file are taken at a time.
const batch = 64

// openParquet returns what reads the rows of a Parquet file.
func openParquet(path string, src io.ReaderAt, size int64) (next func() (Record, error), err error) {
	defer recovered(path, &err)
	if err := checkFooter(src, size); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file, err := parquet.OpenFile(src, size, &parquet.FileConfig{SkipPageIndex: true, SkipBloomFilters: true})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := checkPages(src, size, file.Metadata()); err != nil {
		return nil, fmt.Errorf("%s: malformed Parquet: %w", path, err)
	}
	p := &parquetReader{path: path, r: parquet.NewGenericReader[any](file), all: file.NumRows(), rows: make([]any, batch)}
	for _, column := range file.Schema().Fields() {
		p.columns = append(p.columns, column.Name())
	}
	if !slices.ContainsFunc(file.RowGroups(), func(g parquet.RowGroup) bool { return g.NumRows() != 0 }) {
		p.err = io.EOF // the library fails at the first page of a group without rows
	}
	return p.next, nil
}

// recovered makes an error of a panic of the library: a broken file is no reason to fall.
func recovered(path string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: malformed Parquet (%v)", path, p)
	}
}

type parquetReader struct {
	path    string
	r       *parquet.GenericReader[any]
	columns []string
	rows    []any
	from, n int // what is left of rows
	at      int // number of the row that was returned last, from 1
	all     int64
	err     error
}

func (p *parquetReader) next() (rec Record, err error) {
	if p.from == p.n {
		if err := p.fill(); err != nil {
			return Record{}, err
		}
	}
	p.at++
	rec = Record{Place: Place{File: p.path, Element: p.at}, Fields: strictjson.NewObject(), parquet: true}
	row, _ := p.rows[p.from].(map[string]any)
	p.from++
	for _, column := range p.columns {
		v, err := fromParquet(row[column])
		if err != nil {
			return Record{}, &Error{Place: rec.Place, Err: fmt.Errorf("column %q: %w", column, err)}
		}
		rec.Fields.Set(column, v)
	}
	return rec, nil
}

// fill reads the next rows.
func (p *parquetReader) fill() (err error) {
	defer recovered(p.path, &err)
	if p.err != nil {
		return p.err
	}
	clear(p.rows)
	p.from = 0
	p.n, p.err = p.r.Read(p.rows)
	if p.err != nil && p.err != io.EOF {
		p.err = fmt.Errorf("%s: after row %d: %w", p.path, p.at+p.n, p.err)
	}
	if p.n == 0 && p.err == nil {
		p.err = fmt.Errorf("%s: malformed Parquet: no row can be read after row %d", p.path, p.at)
	}
	if read := int64(p.at + p.n); p.err == io.EOF && read != p.all || read > p.all {
		p.n, p.err = 0, fmt.Errorf("%s: malformed Parquet: the file says that it has %d rows, its columns have others", p.path, p.all)
	}
	if p.n == 0 {
		return p.err
	}
	return nil
}

// fromParquet makes the value of a column what strictjson would make of the same in JSON.
func fromParquet(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool:
		return v, nil
	case string:
		return fromBytes(v)
	case []byte:
		return fromBytes(string(v))
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return json.Number(fmt.Sprint(v)), nil
	case float32:
		return fromFloat(float64(v), 32)
	case float64:
		return fromFloat(v, 64)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = fromParquet(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		object := strictjson.NewObject()
		for _, key := range slices.Sorted(maps.Keys(v)) {
			value, err := fromParquet(v[key])
			if err != nil {
				return nil, err
			}
			object.Set(key, value)
		}
		return object, nil
	}
	return nil, fmt.Errorf("a value of the type %T, which is not read here", v)
}

// fromFloat makes a number; NaN, which pandas writes where there is none, is null.
func fromFloat(v float64, bits int) (any, error) {
	if math.IsNaN(v) {
		return nil, nil
	}
	if math.IsInf(v, 0) {
		return nil, errors.New("an infinite number")
	}
	return json.Number(strconv.FormatFloat(v, 'g', -1, bits)), nil
}

func fromBytes(s string) (any, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("invalid UTF-8 at byte %d", jsoncut.InvalidAt([]byte(s)))
	}
	return s, nil
}

// parquetRow is a Row as Parquet has it.
type parquetRow struct {
	Instruction string  `parquet:"instruction,zstd"`
	Input       string  `parquet:"input,zstd"`
	Output      string  `parquet:"output,zstd"`
	Task        string  `parquet:"task,dict,zstd"`
	Category    string  `parquet:"category,dict,zstd"`
	Source      string  `parquet:"source,dict,zstd"`
	Split       string  `parquet:"split,dict,zstd"`
	ID          string  `parquet:"id,zstd"`
	Extra       *string `parquet:"extra,optional,zstd"`
}

// rowGroup is how many rows a group of a Parquet file has: what is held in memory while one is written. Hugging Face's
// files have as many.
const rowGroup = 1000

// parquetSink writes rows as Parquet.
type parquetSink struct {
	w    *parquet.GenericWriter[parquetRow]
	rows int
}

func newParquetSink(w io.Writer) *parquetSink {
	return &parquetSink{w: parquet.NewGenericWriter[parquetRow](w, parquet.CreatedBy("biolora", "", ""))}
}

func (s *parquetSink) put(r *Row) error {
	p := parquetRow{
		Instruction: r.Instruction, Input: r.Input, Output: r.Output, Task: r.Task,
		Category: r.Category, Source: r.Source, Split: r.Split, ID: r.ID,
	}
	if len(r.Extra) > 0 {
		text := string(appendFields(nil, r.Extra))
		p.Extra = &text
	}
	if _, err := s.w.Write([]parquetRow{p}); err != nil {
		return err
	}
	if s.rows++; s.rows%rowGroup == 0 {
		return s.w.Flush()
	}
	return nil
}

func (s *parquetSink) end() error { return s.w.Close() }
