package eval

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/strictjson"
)

// Answer is a line of predictions.jsonl.
type Answer struct {
	System string `json:"system"`
	Task   string `json:"task"`
	ID     string `json:"id"`     // the row's; where it has none, its file's name and its number from 0
	Answer string `json:"answer"` // up to the stop string
	// Finish is why the answer ended: eos, stop (a stop string) or length (the most tokens it may have); or too_long: the
	// prompt has no room in the model, which was not asked. Empty in files that others wrote.
	Finish string `json:"finish,omitempty"`
	Tokens int    `json:"tokens,omitempty"` // of the answer, its stop string included
	Prompt int    `json:"prompt_tokens,omitempty"`
	// Gold is the likelihood of the row's output with the end token.
	Gold *Likelihood `json:"gold,omitempty"`
	// Options are those of the options of a multiple choice or the labels, in their order, without an end token.
	Options []Likelihood `json:"options,omitempty"`
}

// Likelihood is how likely a model finds a text behind a prompt.
type Likelihood struct {
	LogLikelihood float64 `json:"log_likelihood"` // in nats
	Tokens        int     `json:"tokens"`
	Bytes         int     `json:"bytes"`
}

// maxLine is the longest line of answers, in bytes.
const maxLine = 64 << 20

// due is what comes where in predictions.jsonl.
type due struct {
	system string
	set    *set
}

// plan is what a run asks, in its order.
func (r *run) plan() (all []due) {
	for _, s := range r.Systems {
		for _, x := range r.sets {
			all = append(all, due{s.Name, x})
		}
	}
	return all
}

// journal is predictions.jsonl, open to add to.
type journal struct {
	f   *os.File
	end int64 // of what is known to be in it
}

// resume reads the answers that are there, drops what is behind the last whole one, and returns how many there are.
func (r *run) resume(plan []due) (*journal, int, error) {
	path := r.path(predictionsFile)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, 0, err
	}
	done, end, err := r.replay(f, plan)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &journal{f, end}, done, nil
}

// replay takes over the answers that are there. end is where they end in the file.
func (r *run) replay(f io.Reader, plan []due) (done int, end int64, err error) {
	in := bufio.NewReaderSize(f, 1<<20)
	for _, b := range plan {
		for _, row := range b.set.rows {
			line, err := readLine(in)
			if err == io.EOF { // whatever follows the last line's end is torn
				return done, end, nil
			}
			if err != nil {
				return 0, 0, err
			}
			var a Answer
			if err := decode(line, &a); err != nil {
				return 0, 0, fmt.Errorf("line %d: %w", done+1, err)
			}
			if a.System != b.system || a.Task != b.set.Task.Name || a.ID != row.key {
				return 0, 0, fmt.Errorf("line %d is the answer of %q to %q of %q; there should be that of %q to %q of %q",
					done+1, a.System, a.ID, a.Task, b.system, row.key, b.set.Task.Name)
			}
			r.keep(b, []Answer{a})
			done++
			end += int64(len(line))
		}
	}
	return done, end, nil
}

// readLine returns a whole line; io.EOF where none is whole.
func readLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if line = append(line, part...); len(line) > maxLine {
			return nil, fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

func (r *run) keep(b due, batch []Answer) {
	if r.answers[b.system] == nil {
		r.answers[b.system] = map[*set][]Answer{}
	}
	r.answers[b.system][b.set] = append(r.answers[b.system][b.set], batch...)
}

// add writes a batch and waits until the disk has it. A file that has grown or shrunk is somebody else's, too.
func (j *journal) add(batch []Answer) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	for _, a := range batch {
		if err := e.Encode(a); err != nil {
			return fmt.Errorf("%s: the answer to %q of %s: %w", j.f.Name(), a.ID, a.Task, err)
		}
	}
	info, err := j.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != j.end {
		return fmt.Errorf("%s has %d bytes where this run has written %d: another one is at work there", j.f.Name(), info.Size(), j.end)
	}
	n, err := j.f.Write(text.Bytes())
	if j.end += int64(n); err != nil {
		return err
	}
	return j.f.Sync()
}

// decode is json.Unmarshal, but for errors that speak of Go.
func decode(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err
	}
	expected := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		expected = "a string"
	case reflect.Int, reflect.Float64:
		expected = "a number"
	case reflect.Slice:
		expected = "an array"
	}
	if wrong.Field == "" {
		return fmt.Errorf("expected %s, got: %s", expected, wrong.Value)
	}
	return fmt.Errorf("the field %q: expected %s, got: %s", strings.TrimPrefix(wrong.Field, "Answer."), expected, wrong.Value)
}

// existing takes the answers from files.
func (r *run) existing(ctx context.Context) error {
	if err := r.claimResults(); err != nil {
		return err
	}
	g := gathering{run: r, rows: map[[2]string]*place{}, unused: map[string]int{}}
	for _, x := range r.sets {
		for i, row := range x.rows {
			g.rows[[2]string{x.Task.Name, row.key}] = &place{x, i}
		}
	}
	for _, path := range r.Predictions {
		if err := g.file(ctx, path); err != nil {
			return err
		}
	}
	return g.end()
}

// claimResults looks at what is in the directory, which must not be a run's own.
func (r *run) claimResults() error {
	if err := r.take(); err != nil {
		return err
	}
	if _, err := os.Lstat(r.path(runFile)); err == nil {
		return fmt.Errorf("%s is the directory of a run that has answers of its own: name another one", r.Out)
	}
	for _, name := range []string{ResultsFile, ReportFile} {
		if _, err := os.Lstat(r.path(name)); err == nil && !r.Overwrite {
			return fmt.Errorf("%s exists, and is replaced only if that is asked for", r.path(name))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// place is a row of a set.
type place struct {
	set *set
	at  int
}

// gathering puts existing answers to their rows.
type gathering struct {
	*run
	rows   map[[2]string]*place // by task and id
	unused map[string]int       // answers to other rows, by file
}

// given is a record of a file of answers. Other keys are passed over.
type given struct {
	Answer
	Row        json.RawMessage `json:"id"` // a text, or a number as it is written
	Text       *string         `json:"answer"`
	Prediction *string         `json:"prediction"` // other programs' name for it
}

func (g *gathering) file(ctx context.Context, path string) error {
	sum, err := fingerprint.File(path)
	if err != nil {
		return err
	}
	file := File{Path: path, SHA256: sum}
	for rec, err := range rows.Records(ctx, path, rows.Shape{}) {
		if err == nil {
			if err = g.record(path, &rec); err != nil {
				err = &rows.Error{Place: rec.Place, Err: err}
			}
		}
		if err != nil {
			return err
		}
		file.Rows++
	}
	g.given = append(g.given, file)
	return nil
}

func (g *gathering) record(path string, rec *rows.Record) error {
	var a given
	if err := decode(strictjson.Format(rec.Fields), &a); err != nil {
		return err
	}
	switch {
	case a.Text != nil && a.Prediction != nil:
		return errors.New("it has both answer and prediction")
	case a.Text == nil && a.Prediction == nil:
		return fmt.Errorf("it has neither answer nor prediction, but %s", rec.Names())
	case a.Text == nil:
		a.Text = a.Prediction
	}
	a.Answer.Answer = *a.Text
	if a.ID = id(a.Row); a.ID == "" {
		return errors.New("it has no id that is a text or a number")
	}
	if name := g.Named[path]; name != "" {
		a.System = name
	}
	if a.System == "" {
		a.System = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	if a.Task == "" {
		if len(g.sets) > 1 {
			return fmt.Errorf("it has no task, and there are %d", len(g.sets))
		}
		a.Task = g.sets[0].Task.Name
	}
	p := g.rows[[2]string{a.Task, a.ID}]
	if p == nil {
		g.unused[path]++
		return nil
	}
	if g.answers[a.System] == nil {
		g.answers[a.System] = map[*set][]Answer{}
		g.systems = append(g.systems, a.System)
	}
	of := g.answers[a.System]
	if of[p.set] == nil {
		of[p.set] = make([]Answer, len(p.set.rows))
	}
	if of[p.set][p.at].ID != "" {
		return fmt.Errorf("a second answer of %q to %q of %s", a.System, a.ID, a.Task)
	}
	of[p.set][p.at] = a.Answer
	return nil
}

// id is what a JSON text or number says, or empty.
func id(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	return ""
}

// end finds out which answers are missing: a score over the others would be one of another set.
func (g *gathering) end() error {
	var errs []error
	if len(g.systems) == 0 {
		errs = append(errs, errors.New("no answer is one to a row of the tasks"))
	}
	for _, system := range g.systems {
		for _, x := range g.sets {
			of := g.answers[system][x]
			missing, first := 0, ""
			for i, row := range x.rows {
				if of == nil || of[i].ID == "" {
					if missing++; missing == 1 {
						first = row.key
					}
				}
			}
			if missing > 0 {
				errs = append(errs, fmt.Errorf("%s has no answer to %d of the %d rows of %s: %q is the first", system, missing, len(x.rows), x.Task.Name, first))
			}
		}
	}
	for _, file := range g.given {
		if n := g.unused[file.Path]; n > 0 {
			g.warnings = append(g.warnings, fmt.Sprintf("%s: %d answers are to rows that are not scored", file.Path, n))
		}
	}
	return errors.Join(errs...)
}
