package medtuned

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/strictjson"
)

// tidy trims a text and makes its line ends \n.
func tidy(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n"))
}

// fields reads fields of a record and gathers what is wrong with them.
type fields struct {
	rec  rows.Record
	errs []error
	skip string // why the record is no row of the task
}

func (f *fields) fail(format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(format, args...))
}

// get returns the first field that is there of several names for the same.
func (f *fields) get(names []string) (name string, value any) {
	for _, n := range names {
		if v, ok := f.rec.Fields.Get(n); ok && v != nil {
			return n, v
		}
	}
	return names[0], nil
}

// text is a field that must say something; several names are several spellings of the same field.
func (f *fields) text(names ...string) string {
	s := f.optional(names...)
	if name, v := f.get(names); v == nil {
		f.fail("expected the field %s; the record has %s", quoted(names), f.rec.Names())
	} else if _, ok := v.(string); ok && s == "" {
		f.fail("the field %q is empty", name)
	}
	return s
}

// optional is a field that may be absent or empty.
func (f *fields) optional(names ...string) string {
	name, v := f.get(names)
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return tidy(v)
	}
	f.fail("the field %q: expected a string, got %s", name, strictjson.Kind(v))
	return ""
}

// scalar is a field that says something as a string, a number or a bool.
func (f *fields) scalar(names ...string) string {
	switch _, v := f.get(names); v := v.(type) {
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	return f.text(names...)
}

// list is a field that is an array of strings, or the JSON text of one, as in a column of CSV.
func (f *fields) list(names ...string) (items []string) {
	name, v := f.get(names)
	if s, ok := v.(string); ok {
		parsed, err := strictjson.Parse([]byte(s))
		if err != nil {
			f.fail(`the field %q: expected a list such as ["a", "b"], got %q`, name, short(s))
			return nil
		}
		v = parsed
	}
	if v == nil {
		f.fail("expected the field %s; the record has %s", quoted(names), f.rec.Names())
		return nil
	}
	array, ok := v.([]any)
	if !ok {
		f.fail("the field %q: expected a list, got %s", name, strictjson.Kind(v))
		return nil
	}
	for i, e := range array {
		s, ok := e.(string)
		if !ok {
			f.fail("%s[%d]: expected a string, got %s", name, i, strictjson.Kind(e))
			continue
		}
		items = append(items, tidy(s))
	}
	return items
}

// label is a field that names one of labels, in any letter case, or by one of other names for them.
func (f *fields) label(labels []string, others map[string]string, names ...string) string {
	before := len(f.errs)
	s := f.scalar(names...)
	if len(f.errs) > before {
		return ""
	}
	if l, ok := findLabel(s, labels, others); ok {
		return l
	}
	f.fail("the field %s: expected one of %s, got %q", quoted(names), strings.Join(labels, ", "), short(s))
	return ""
}

// findLabel finds a label by its name, or another name for it.
func findLabel(s string, labels []string, others map[string]string) (string, bool) {
	if l, ok := others[strings.ToLower(s)]; ok {
		return l, true
	}
	i := slices.IndexFunc(labels, func(l string) bool { return strings.EqualFold(l, s) })
	if i < 0 {
		return "", false
	}
	return labels[i], true
}

func quoted(names []string) string {
	var q []string
	for _, n := range names {
		q = append(q, strconv.Quote(n))
	}
	return strings.Join(q, " or ")
}

// short cuts what a message quotes.
func short(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// perRecord makes an item of each record.
func perRecord(shape rows.Shape, make func(f *fields, task *Task) item) itemsFunc {
	return func(ctx context.Context, files []string, task *Task, skip skipFunc) iter.Seq2[item, error] {
		return func(yield func(item, error) bool) {
			for _, file := range files {
				if !fileItems(ctx, file, shape, task, skip, make, yield) {
					return
				}
			}
		}
	}
}

// fileItems yields the items of one file. It is false where the sequence ends.
func fileItems(ctx context.Context, file string, shape rows.Shape, task *Task, skip skipFunc, make func(f *fields, task *Task) item, yield func(item, error) bool) bool {
	n := -1
	for rec, err := range rows.Records(ctx, file, shape) {
		var bad *rows.Error
		if err != nil && !errors.As(err, &bad) {
			yield(item{}, err)
			return false
		}
		n++
		var it item
		if err == nil {
			f := &fields{rec: rec}
			it = make(f, task)
			if f.skip != "" {
				skip(rec.Place, f.skip)
				continue
			}
			if it.place = rec.Place; it.key == "" {
				it.key, it.global = strconv.Itoa(n), false
			}
			if joined := errors.Join(f.errs...); joined != nil {
				err = &rows.Error{Place: rec.Place, Err: joined}
			}
		}
		if !yield(it, err) {
			return false
		}
	}
	return true
}
