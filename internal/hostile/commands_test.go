//go:build unix

package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/biolora/biolora/internal/golden"
)

// What a refusal may take.
const (
	deadline = 10 * time.Second
	memory   = 1 << 30 // bytes, resident
	// slack is for the machine: it may have other things to do.
	slack = 12
)

// place is a directory with a small model, an adapter for it and rows, of which a case replaces something.
type place struct {
	t   *testing.T
	dir string
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t, t.TempDir()}
	from := filepath.Join(golden.Root(t), "testdata", "golden", "linear-theta")
	p.must(os.CopyFS(p.path("model"), os.DirFS(filepath.Join(from, "model"))))
	p.must(os.CopyFS(p.path("adapter"), os.DirFS(filepath.Join(from, "adapter_init"))))
	rows, err := os.ReadFile(filepath.Join(from, "rows.jsonl"))
	p.must(err)
	p.write("rows.jsonl", string(rows))
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

func (p *place) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) write(name string, parts ...string) {
	p.t.Helper()
	p.remove(name)
	f, err := os.Create(p.path(name))
	p.must(err)
	for _, s := range parts {
		_, err := f.WriteString(s)
		p.must(err)
	}
	p.must(f.Close())
}

func (p *place) remove(names ...string) {
	p.t.Helper()
	for _, name := range names {
		p.must(os.RemoveAll(p.path(name)))
	}
}

func (p *place) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	p.must(err)
	return string(data)
}

// edit replaces a piece of a file, which must be there.
func (p *place) edit(name, old, new string) {
	p.t.Helper()
	text := p.read(name)
	if !strings.Contains(text, old) {
		p.t.Fatalf("%s has no %q", name, old)
	}
	p.write(name, strings.Replace(text, old, new, 1))
}

func (p *place) link(name, to string) {
	p.t.Helper()
	p.remove(name)
	p.must(os.Symlink(to, p.path(name)))
}

func (p *place) pipe(name string) {
	p.t.Helper()
	p.remove(name)
	p.must(unix.Mkfifo(p.path(name), 0o600))
}

func (p *place) directory(name string) {
	p.t.Helper()
	p.remove(name)
	p.must(os.Mkdir(p.path(name), 0o700))
}

// commands are command lines that read what lies in a place.
var commands = map[string]string{
	"train":    "lora-train --model model --data rows.jsonl --out out --max-steps 1",
	"continue": "lora-train --model model --data rows.jsonl --out out --max-steps 1 --adapter adapter",
	"config":   "lora-train --model model --data rows.jsonl --out out --max-steps 1 --config run.yaml",
	"template": "lora-train --model model --data rows.jsonl --out out --max-steps 1 --template template.yaml",
	"merge":    "lora-export merge --model model --adapter adapter --out out",
	"info":     "lora-export info model",
	"file":     "lora-export info file.gguf",
	"adapter":  "lora-export info adapter",
	"tokenize": "lora-data tokenize --model model",
	"preview":  "lora-data preview --model model --data rows.jsonl",
}

// programs builds the commands once for all tests, into a directory that TestMain removes.
var programs = sync.OnceValues(func() (dir string, err error) {
	if built, err = os.MkdirTemp("", "biolora-commands"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", built+string(filepath.Separator), "github.com/biolora/biolora/cmd/...")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return built, nil
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// outcome is how a command ended.
type outcome struct {
	code   int
	signal syscall.Signal
	stderr string
	memory int64
	took   time.Duration
}

// start prepares a command in a place. A limit on its address space keeps a mistake from taking the machine with it.
func (p *place) start(ctx context.Context, line string) *exec.Cmd {
	p.t.Helper()
	dir, err := programs()
	p.must(err)
	words := strings.Fields(line)
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -v 16000000; exec "$0" "$@"`, filepath.Join(dir, words[0])}, words[1:]...)...)
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader("\"a text\"\n")
	return cmd
}

func (p *place) run(line string) outcome {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), slack*deadline)
	defer cancel()
	cmd := p.start(ctx, line)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	o := outcome{code: cmd.ProcessState.ExitCode(), stderr: stderr.String(), memory: int64(usage.Maxrss), took: took}
	if runtime.GOOS == "linux" {
		o.memory *= 1024 // in kilobytes there
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		o.signal = status.Signal()
	}
	// What counts is the command's own time; on a machine with other work the clock says more.
	if own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); own < took {
		o.took = own
	}
	return o
}

// refused requires that a command ends as hostile input should end it: with most lines, the first of which has want.
func (o outcome) refused(t *testing.T, most int, want string) {
	t.Helper()
	if o.signal != 0 || o.code != 1 {
		t.Errorf("exit status %d, signal %v\n%.3000s", o.code, o.signal, o.stderr)
	}
	if o.took > deadline {
		t.Errorf("it took %v", o.took)
	}
	if o.memory > memory {
		t.Errorf("it took %d MiB", o.memory>>20)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(o.stderr, "\n"), "\n")
	if len(lines) > most {
		t.Errorf("%d lines, want %d:\n%.3000s", len(lines), most, o.stderr)
	}
	for _, line := range lines {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes:\n%.3000s", len(line), o.stderr)
		}
	}
	if !strings.Contains(lines[0], want) {
		t.Errorf("got  %.2000s\nwant %s", o.stderr, want)
	}
	for _, word := range []string{"panic", "goroutine", "runtime error", "SIGSEGV", "SIGBUS", "invalid memory address"} {
		if strings.Contains(o.stderr, word) {
			t.Errorf("the message says %q:\n%.3000s", word, o.stderr)
		}
	}
	steers := func(c rune) bool { return c != '\n' && unicode.IsControl(c) }
	if !utf8.ValidString(o.stderr) || strings.ContainsFunc(o.stderr, steers) {
		t.Errorf("the message has control characters: %.3000q", o.stderr)
	}
}

// hostile is a case: what is wrong, and what the commands that read it say.
type hostile struct {
	name     string
	commands string
	make     func(p *place)
	want     string
}

// lines are for cases that are more than one problem.
var lines = map[string]int{"weights of another model": 25, "adapter for a base that lies elsewhere": 13}

func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	for _, h := range cases {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			h.make(p)
			for _, name := range strings.Fields(h.commands) {
				t.Run(name, func(t *testing.T) { p.run(commands[name]).refused(t, max(1, lines[h.name]), h.want) })
			}
		})
	}
}

// What an adapter says of its base is not opened: a pipe would keep the command waiting.
func TestBaseModelIsNotOpened(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	p := newPlace(t)
	p.pipe("pipe")
	p.edit(adapterFile, `"base_model_name_or_path": "model"`, `"base_model_name_or_path": "pipe"`)
	for _, name := range []string{"continue", "adapter", "merge"} {
		p.remove("out")
		if o := p.run(commands[name]); o.code != 0 {
			t.Errorf("%s: exit status %d, signal %v\n%s", name, o.code, o.signal, o.stderr)
		}
	}
}

// The untouched place is in order, so that a case fails for its own reason.
func TestNothingHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	p := newPlace(t)
	for _, name := range []string{"train", "info", "adapter", "tokenize", "preview", "merge"} {
		if name == "merge" {
			p.remove("out")
		}
		if o := p.run(commands[name]); o.code != 0 {
			t.Errorf("%s: exit status %d\n%s", name, o.code, o.stderr)
		}
	}
}

// tensors makes a safetensors file of a header and no data.
func tensors(header ...string) []string {
	n := 0
	for _, h := range header {
		n += len(h)
	}
	return append([]string{string(binary.LittleEndian.AppendUint64(nil, uint64(n)))}, header...)
}

// many is a list of n items made by item.
func many(n int, item func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(item(i))
	}
	return b.String()
}
