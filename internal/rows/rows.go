// Package rows reads and writes files of instruction rows with the eight fields of biolora's corpora, and the files of
// records, of whatever fields, that such rows are made from.
//
// # Formats
//
// JSON (an array of objects), JSON Lines, CSV, TSV and Parquet are read; JSON, JSON Lines and Parquet are written. What a
// file is read as is told by its first bytes, and by its name where they leave it open:
//
//	PAR1        Parquet, in any of its encodings and compressions; lists and groups too
//	[           JSON: an array of objects
//	{           JSON Lines: an object a line
//	otherwise   CSV where the name ends in .csv, TSV where it ends in .tsv or .tab; the first line names the columns
//
// CSV is RFC 4180's. A quote inside a field that does not begin with one is text, as in Python's csv; in TSV so is one
// whose field goes on after it. JSON is read strictly (see package strictjson). All text must be UTF-8. A file is read
// record by record: what is in memory is one record, of Parquet one page of each column.
//
// # Fields
//
// A row has the fields instruction, input, output, task, category, source, split and id. Instruction and output are
// texts that say something; the others may be absent, null or empty; an id may be a number. Fields of other names are
// kept in Row.Extra, in their order. JSON and JSON Lines write them after the eight, so that a copy from JSON to JSON
// has all of a file's fields. The columns of Parquet are fixed before its first row: it has the eight, and one named
// extra with the others as a JSON object, which is taken apart again when the file is read. CSV and TSV give Extra as
// text.
//
// # Bad rows
//
// Readers are sequences of (Row, error). After an *Error, which is one bad row and says its file and line, a sequence
// goes on; any other error is its end. Bad gathers the bad rows of a sequence.
//
// Parquet is read by github.com/parquet-go/parquet-go. Its panics on broken files become errors, and what it would allocate
// is checked against the size of the file first: no page may say that it unpacks to more than 512 MiB. A page that unpacks
// to more than it says is found only then.
package rows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/strictjson"
)

// Row is one instruction with its answer, and where it comes from.
type Row struct {
	Instruction string // what is to be done
	Input       string // what it is to be done with; may be empty
	Output      string // the answer
	Task        string // name of the task, such as "medqa"
	Category    string // of the task: QA, IE, GEN or other
	Source      string // corpus
	Split       string // train, dev or test
	ID          string

	Extra []Field // fields of other names, in the order of the file
}

// Field is a field of another name than a Row has.
type Field struct {
	Key string
	// Value is nil, a bool, json.Number, string, []any or *strictjson.Object, as strictjson.Parse returns it.
	Value any
}

// extraColumn is where Parquet has the fields of other names.
const extraColumn = "extra"

// text is one of the eight fields.
type text struct {
	key   string
	value *string
}

// texts are the eight fields in the order in which they are written.
func (r *Row) texts() [8]text {
	return [8]text{
		{"instruction", &r.Instruction}, {"input", &r.Input}, {"output", &r.Output}, {"task", &r.Task},
		{"category", &r.Category}, {"source", &r.Source}, {"split", &r.Split}, {"id", &r.ID},
	}
}

// Check says what a row lacks: it must have an instruction and an output.
func (r *Row) Check() error {
	var errs []error
	if strings.TrimSpace(r.Instruction) == "" {
		errs = append(errs, errors.New("the instruction is empty"))
	}
	if strings.TrimSpace(r.Output) == "" {
		errs = append(errs, errors.New("the output is empty"))
	}
	return errors.Join(errs...)
}

// Place is where a record stands. In Parquet, which has no lines, Line is 0 and Element the row from 1.
type Place = jsoncut.Place

// Error is a bad row; the rows after it can be read.
type Error = jsoncut.Error

// Read reads the rows of a file. It ends with the context's error when that ends.
func Read(ctx context.Context, path string) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for rec, err := range Records(ctx, path, Shape{}) {
			var row Row
			if err == nil {
				row, err = parse(rec)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// parse makes a Row of a record.
func parse(rec Record) (Row, error) {
	var row Row
	var errs []error
	texts := row.texts()
	for _, key := range rec.Fields.Keys {
		value, _ := rec.Fields.Get(key)
		i := slices.IndexFunc(texts[:], func(t text) bool { return t.key == key })
		if i < 0 {
			row.Extra = append(row.Extra, Field{key, value})
			continue
		}
		var err error
		if *texts[i].value, err = asText(key, value); err != nil {
			errs = append(errs, err)
		}
	}
	if rec.parquet {
		row.Extra = unpackExtra(row.Extra)
	}
	if len(errs) == 0 {
		errs = append(errs, missing(rec, &row))
	}
	if err := errors.Join(errs...); err != nil {
		return Row{}, &Error{Place: rec.Place, Err: err}
	}
	return row, nil
}

// missing is Check, and tells fields that are not there from empty ones.
func missing(rec Record, row *Row) error {
	err := row.Check()
	if err == nil {
		return nil
	}
	_, instruction := rec.Fields.Get("instruction")
	_, output := rec.Fields.Get("output")
	if instruction && output {
		return err
	}
	return fmt.Errorf(`expected the fields "instruction" and "output"; the row has %s`, rec.Names())
}

func asText(key string, value any) (string, error) {
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		if key == "id" {
			return v.String(), nil
		}
	}
	return "", fmt.Errorf("the field %q: expected a string, got %s", key, strictjson.Kind(value))
}

// unpackExtra takes apart the column that Write made of fields of other names.
func unpackExtra(fields []Field) []Field {
	if len(fields) != 1 || fields[0].Key != extraColumn {
		return fields
	}
	if fields[0].Value == nil {
		return nil
	}
	s, ok := fields[0].Value.(string)
	if !ok {
		return fields
	}
	object, err := strictjson.ParseObject([]byte(s))
	if err != nil {
		return fields // a text of somebody else's
	}
	fields = nil
	for _, key := range object.Keys {
		value, _ := object.Get(key)
		fields = append(fields, Field{key, value})
	}
	return fields
}
