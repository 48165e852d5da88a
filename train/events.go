package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EventsFile is the name of the file of events in the output directory.
const EventsFile = "events.jsonl"

// events writes events.jsonl: a line a step and a line an evaluation, each in one write as soon as it is known.
type events struct {
	NopHook
	f *os.File
}

// createEvents makes the directory and the file, which must be new: events of two runs in one file mean nothing.
func createEvents(dir string) (*events, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, EventsFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("output directory %s holds the %s of another run: %w", dir, EventsFile, err)
	}
	if err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	return &events{f: f}, nil
}

func (e *events) Step(s StepEvent) error { return e.write(s) }
func (e *events) Eval(s EvalEvent) error { return e.write(s) }

func (e *events) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", e.f.Name(), err)
	}
	if _, err := e.f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}

// close reports what the system kept back until now.
func (e *events) close() error {
	if err := e.f.Close(); err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}
