package ask

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/biolora/biolora/internal/filelock"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
)

// Journal is a file of all requests and answers of a job, and of attempts that failed. It is JSON Lines: records are
// appended, each written at once and brought to the disk before anything else happens with it. A last line without its
// end was torn when the process or the machine stopped, and does not count.
//
// The first line is the job: whatever decides which requests there are, so that no other job goes on with it.
type Journal struct {
	path string
	job  json.RawMessage
	run  json.RawMessage // settings of the last run

	mu       sync.Mutex
	file     *os.File // nil: for reading only
	broken   error    // a write failed: what the file's end looks like is not known
	requests map[int][]byte
	answers  map[int]Answer
}

// version of the journal's format.
const version = 1

// ErrEmpty is told of a file that has no whole line yet.
var ErrEmpty = errors.New("empty, not a journal")

// record is a line.
type record struct {
	Kind    string          `json:"kind"` // job, run, request, failure or answer
	At      time.Time       `json:"at"`
	Version int             `json:"version,omitempty"`
	Job     json.RawMessage `json:"job,omitempty"`
	Run     json.RawMessage `json:"run,omitempty"`
	Number  *int            `json:"n,omitempty"`
	Request json.RawMessage `json:"request,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Status  int             `json:"status,omitempty"`
	Error   string          `json:"error,omitempty"`
	Answer  *Answer         `json:"answer,omitempty"`
}

// ErrOtherJob is why a journal does not go on.
var ErrOtherJob = errors.New("this journal is of another job")

// Create opens the journal at path, or begins one, for a run of a job with its settings. Job is written as JSON; one that
// is there already must be the same, or the error is ErrOtherJob; but one without an answer gives way. Where the system has locks for files, a journal that another process writes to is
// refused.
func Create(path string, job, settings any) (*Journal, error) {
	mine, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	run, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	j := newJournal(path)
	if err := j.begin(f, mine, run); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

func newJournal(path string) *Journal {
	return &Journal{path: path, requests: map[int][]byte{}, answers: map[int]Answer{}}
}

func (j *Journal) begin(f *os.File, mine, run json.RawMessage) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if err := filelock.File(f); errors.Is(err, filelock.ErrHeld) {
		return errors.New("another process is writing to this journal")
	} else if err != nil {
		return err
	}
	whole, err := j.read(f)
	if err != nil {
		return err
	}
	if j.job != nil && !bytes.Equal(j.job, mine) {
		if len(j.answers) > 0 {
			return fmt.Errorf("%w; %s", ErrOtherJob, difference(j.job, mine))
		}
		j.job, whole = nil, 0
		clear(j.requests)
	}
	if err := f.Truncate(whole); err != nil {
		return err
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return err
	}
	j.file = f
	if j.job == nil {
		j.job = mine
		if err := j.append(record{Kind: "job", Version: version, Job: mine}); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
	}
	j.run = run
	return j.append(record{Kind: "run", Run: run})
}

// Read reads a journal, also one that is being written.
func Read(path string) (*Journal, error) {
	f, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j := newJournal(path)
	if _, err := j.read(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if j.job == nil {
		return nil, fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	return j, nil
}

// Job reads what the job was said to be.
func (j *Journal) Job(dst any) error { return j.decode("job", j.job, dst) }

// Settings reads the settings of the last run.
func (j *Journal) Settings(dst any) error { return j.decode("run", j.run, dst) }

func (j *Journal) decode(what string, text json.RawMessage, dst any) error {
	if err := json.Unmarshal(text, dst); err != nil {
		return fmt.Errorf("%s: %s: %w", j.path, what, err)
	}
	return nil
}

// Answers is how many answers there are.
func (j *Journal) Answers() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.answers)
}

// Known are the numbers of the requests that are there, by their keys, and the lowest number behind all of them: for jobs
// whose requests are told by what they ask, so that several can share a journal. Of two that ask the same, the lower counts.
func (j *Journal) Known() (numbers map[string]int, next int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	numbers = make(map[string]int, len(j.requests))
	for _, n := range slices.Sorted(maps.Keys(j.requests)) {
		key := keyOf(j.requests[n])
		if _, twice := numbers[key]; !twice {
			numbers[key] = n
		}
		next = max(next, n+1)
	}
	return numbers, next
}

// Key is the same for requests that ask the same, whatever their numbers.
func (r Request) Key() (string, error) {
	b, err := body(r)
	return keyOf(b), err
}

func keyOf(body []byte) string {
	sum := sha256.Sum256(body)
	return string(sum[:])
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// read reads all whole lines and returns their bytes.
func (j *Journal) read(r io.Reader) (whole int64, err error) {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil // the last line is empty, or torn
		}
		if err != nil {
			return whole, err
		}
		if err := j.line(line, n == 1); err != nil {
			return whole, fmt.Errorf("line %d: %w", n, err)
		}
		whole += int64(len(line))
	}
}

func (j *Journal) line(text []byte, first bool) error {
	var rec record
	if err := json.Unmarshal(text, &rec); err != nil {
		return fmt.Errorf("not a record of a journal: %w", err)
	}
	if first != (rec.Kind == "job") {
		return fmt.Errorf("kind %q: the first line of a journal, and no other, is the job", rec.Kind)
	}
	switch rec.Kind {
	case "job":
		if rec.Version != version || rec.Job == nil {
			return fmt.Errorf("version %d of the format; this program knows %d", rec.Version, version)
		}
		j.job = rec.Job
		return nil
	case "run":
		j.run = rec.Run
		return nil
	}
	if rec.Number == nil {
		return fmt.Errorf("a record of kind %q without a number", rec.Kind)
	}
	switch {
	case rec.Kind == "request" && rec.Request != nil:
		j.requests[*rec.Number] = rec.Request
	case rec.Kind == "failure":
	case rec.Kind == "answer" && rec.Answer != nil:
		if _, ok := j.answers[*rec.Number]; ok {
			return fmt.Errorf("a second answer to request %d", *rec.Number)
		}
		if _, ok := j.requests[*rec.Number]; !ok {
			return fmt.Errorf("an answer to request %d, which is not there", *rec.Number)
		}
		j.answers[*rec.Number] = *rec.Answer
	default:
		return fmt.Errorf("kind %q is not known, or has not what it needs", rec.Kind)
	}
	return nil
}

// append writes records and waits until the disk has them.
func (j *Journal) append(all ...record) error {
	if j.broken != nil {
		return j.broken
	}
	var lines bytes.Buffer
	e := json.NewEncoder(&lines)
	e.SetEscapeHTML(false)
	for _, rec := range all {
		rec.At = time.Now().UTC().Truncate(time.Millisecond)
		if err := e.Encode(rec); err != nil {
			return err
		}
	}
	_, err := j.file.Write(lines.Bytes())
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.broken = fmt.Errorf("%s: %w", j.path, err)
	}
	return j.broken
}

// body is a request as the journal has it.
func body(r Request) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return bytes.TrimSpace(b.Bytes()), err
}

// answer returns the answer to a request. A request of the same number that asks something else is an error.
func (j *Journal) answer(r Request) (Answer, bool, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	there, ok := j.requests[r.Number]
	if !ok {
		return Answer{}, false, nil
	}
	mine, err := body(r)
	if err != nil {
		return Answer{}, false, err
	}
	if !bytes.Equal(there, mine) {
		return Answer{}, false, fmt.Errorf("%s: request %d is another one here; %s", j.path, r.Number, difference(there, mine))
	}
	a, ok := j.answers[r.Number]
	return a, ok, nil
}

// request writes a request down, if it is not there yet.
func (j *Journal) request(r Request) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.requests[r.Number]; ok {
		return nil
	}
	b, err := body(r)
	if err != nil {
		return err
	}
	j.requests[r.Number] = b
	return j.append(record{Kind: "request", Number: &r.Number, Request: b})
}

func (j *Journal) addAnswer(r Request, a Answer) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answers[r.Number] = a
	return j.append(record{Kind: "answer", Number: &r.Number, Answer: &a})
}

// addAll writes some of the requests down, if they are not there yet, with their answers.
func (j *Journal) addAll(all []Request, answers []Answer, some []int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []record
	for _, i := range some {
		r := &all[i]
		if _, ok := j.requests[r.Number]; !ok {
			b, err := body(*r)
			if err != nil {
				return err
			}
			j.requests[r.Number] = b
			lines = append(lines, record{Kind: "request", Number: &r.Number, Request: b})
		}
		j.answers[r.Number] = answers[i]
		lines = append(lines, record{Kind: "answer", Number: &r.Number, Answer: &answers[i]})
	}
	return j.append(lines...)
}

func (j *Journal) failure(r Request, attempt int, c *CallError) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.append(record{Kind: "failure", Number: &r.Number, Attempt: attempt, Status: c.Status, Error: c.Error()})
}

// totals counts what the journal has.
func (j *Journal) totals() (t Totals) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t.Models = map[string]int{}
	for _, a := range j.answers {
		t.add(a)
	}
	return t
}

// difference names the fields in which two JSON objects differ.
func difference(there, mine []byte) string {
	a, errA := strictjson.ParseObject(there)
	b, errB := strictjson.ParseObject(mine)
	if err := errors.Join(errA, errB); err != nil {
		return "they cannot be compared: " + err.Error()
	}
	keys := slices.Clone(a.Keys)
	for _, key := range b.Keys {
		if _, ok := a.Get(key); !ok {
			keys = append(keys, key)
		}
	}
	var all []string
	for _, key := range keys {
		x, inA := a.Get(key)
		y, inB := b.Get(key)
		if inA != inB || !bytes.Equal(strictjson.Format(x), strictjson.Format(y)) {
			all = append(all, fmt.Sprintf("%s is %s there and %s here", key, short(x, inA), short(y, inB)))
		}
	}
	return strings.Join(all, "; ")
}

func short(v any, there bool) string {
	if !there {
		return "absent"
	}
	text := string(bytes.TrimSpace(strictjson.Format(v)))
	if len(text) > 60 {
		return "a longer text"
	}
	return text
}

// syncDir makes a new file's name last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
