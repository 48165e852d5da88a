package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/golden"
	"github.com/biolora/biolora/tokenizer"
)

// referenceCase is a text with the ids that Hugging Face's tokenizers gives for it.
type referenceCase struct {
	Text   string
	IDs    []int32
	Plain  []int32
	Decode *string
	// With special tokens written out, where that makes a difference.
	DecodeSpecial *string `json:"decode_special"`
}

func jsonLine(t *testing.T, v any) string {
	t.Helper()
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The reference cases of package tokenizer, through the command and back.
func TestTokenizeAsReference(t *testing.T) {
	for _, name := range []string{"sp", "metaspace", "words", "llama3", "gpt2", "regex"} {
		t.Run(name, func(t *testing.T) {
			var cases []referenceCase
			if err := json.Unmarshal([]byte(read(t, own(t, "tokenizer", name+".encode.json"))), &cases); err != nil {
				t.Fatal(err)
			}
			var texts, ids, plain, decoded strings.Builder
			for _, c := range cases {
				texts.WriteString(jsonLine(t, c.Text))
				ids.WriteString(jsonLine(t, append([]int32{}, c.IDs...)))
				if c.Plain == nil {
					c.Plain = c.IDs
				}
				plain.WriteString(jsonLine(t, append([]int32{}, c.Plain...)))
				decoded.WriteString(jsonLine(t, *cmp.Or(c.DecodeSpecial, c.Decode, &c.Text)))
			}
			model := own(t, "tokenizer", name+".json")
			sameLines(t, "ids", must(t, texts.String(), "tokenize", "--model", model), ids.String())
			sameLines(t, "ids without specials", must(t, texts.String(), "tokenize", "--no-special-in-text", "--model", model), plain.String())
			sameLines(t, "texts", must(t, ids.String(), "tokenize", "--decode", "--model", model), decoded.String())
		})
	}
}

func sameLines(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		t.Fatalf("%s: %d lines, want %d", what, len(g), len(w))
	}
	bad := 0
	for i := range g {
		if g[i] != w[i] && bad < 5 {
			bad++
			t.Errorf("%s: line %d is %s, want %s", what, i+1, g[i], w[i])
		}
	}
}

func TestTokenize(t *testing.T) {
	model := own(t, "tokenizer", "sp.json")
	for _, c := range []struct{ name, flags, stdin, want string }{
		{"nothing", "", "", ""},
		{"empty string", "", "\"\"\n", "[]\n"},
		{"empty string, special", "--special", "\"\"\n", "[1]\n"},
		{"special tokens in text", "", `"<s></s>"`, "[1,2]\n"},
		{"BOS is put before a text that brings it", "--special", `"<s></s>"`, "[1,1,2]\n"},
		{"last line without an end", "", "\"\"\n\"\"", "[]\n[]\n"},
		{"carriage returns, spaces, a byte order mark", "", "\xEF\xBB\xBF\"\"\r\n  \"\"\t\r\n", "[]\n[]\n"},
		{"NUL is a character", "", `"\u0000"`, "[327,3]\n"},
		{"a pair of surrogates is a character", "", `"\ud83d\ude00"`, "[327,243,162,155,131]\n"},
		{"no ids", "--decode", "[]\n[ ]\n", "\"\"\n\"\"\n"},
		{"special ids are written out", "--decode", "[1, 2]\n", "\"<s></s>\"\n"},
		{"what --special puts around is taken off", "--decode --special", "[1]\n[1,1,2]\n[2,1]\n[]\n", "\"\"\n\"<s></s>\"\n\"</s><s>\"\n\"\"\n"},
		{"bytes that are no character", "--decode", "[243,162]\n", "\"\uFFFD\uFFFD\"\n"},
		{"what JSON must escape", "--decode", "[3,13,37,63]\n", `"\u0000\n\"<"` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"tokenize", "--model", model}, strings.Fields(c.flags)...)
			if got := must(t, c.stdin, args...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTokenizeErrors(t *testing.T) {
	model := own(t, "tokenizer", "sp.json")
	for _, c := range []struct{ name, flags, stdin, stdout, want string }{
		{"not JSON", "", "\"\"\nhello\n\"\"\n", "[]\n", "<stdin>:2: byte 0 of the line: want a string, got 'h'"},
		{"an empty line", "", "\"\"\n\n\"\"\n", "[]\n", "<stdin>:2: expected a JSON string, got an empty line"},
		{"ids for a text", "", "[1]\n", "", "<stdin>:1: byte 0 of the line: want a string, got '['"},
		{"null", "", "null\n", "", "<stdin>:1: byte 0 of the line: want a string, got 'n'"},
		{"two strings", "", "\"\" \"\"\n", "", "<stdin>:1: byte 3 of the line: there is more after the end of the value"},
		{"cut off", "", "\"abc\n", "", "<stdin>:1: byte 4 of the line: the text ends inside a string"},
		{"half a pair of surrogates", "", `"a\ud800"`, "", "<stdin>:1: byte 2 of the line: lone surrogate"},
		{"not UTF-8", "", "\"\"\n\"a\xff\"", "[]\n", "<stdin>:2: byte 2 of the line: not valid UTF-8"},
		{"NUL as it is", "", "\"\x00\"", "", "<stdin>:1: byte 1 of the line: control character 0x00 in a string"},
		{"a text for ids", "--decode", `"a"`, "", `<stdin>:1: byte 0 of the line: want '[', got '"'`},
		{"a negative id", "--decode", "[1,-1]", "", "<stdin>:1: byte 3 of the line: want a whole number from 0, got -1"},
		{"a fraction", "--decode", "[1.0]", "", "<stdin>:1: byte 1 of the line: want a whole number from 0, got 1.0"},
		{"an id of no token", "--decode", "[0,100000]", "", "<stdin>:1: element 1 is 100000, and the tokenizer has"},
		{"a huge id", "--decode", "[18446744073709551616]", "", "<stdin>:1: byte 1 of the line: 18446744073709551616 does not fit 64 bits"},
		{"an empty line of ids", "--decode", "\n", "", "<stdin>:1: expected a JSON array of ids, got an empty line"},
		{"arrays in arrays", "--decode", strings.Repeat("[", 100000), "", "<stdin>:1: byte 1 of the line: want a number, got '['"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"tokenize", "--model", model}, strings.Fields(c.flags)...)
			code, stdout, stderr := execute(strings.NewReader(c.stdin), args...)
			if code != cli.Failed || stdout != c.stdout || !strings.HasPrefix(stderr, "lora-data: "+c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestTokenizeUsage(t *testing.T) {
	model := own(t, "tokenizer", "sp.json")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"tokenize", cli.Usage, "missing flags: --model"},
		{"tokenize --mdoel x", cli.Usage, `unknown flag --mdoel, did you mean "--model"?`},
		{"tokenise --model x", cli.Usage, `did you mean "tokenize"?`},
		{"tokenize --decode --no-special-in-text --model " + model, cli.Usage, "--no-special-in-text is for text, and --decode reads ids"},
		{"tokenize --model no/such/dir", cli.Failed, "no/such/dir: no such file"},
		{"tokenize --in no/such/file --model " + model, cli.Failed, "no/such/file: no such file"},
		{"tokenize --in . --model " + model, cli.Failed, "is a directory"},
	} {
		code, stdout, stderr := execute(strings.NewReader(""), strings.Fields(c.args)...)
		if code != c.code || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit status %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
}

// A line that is too long is refused before all of it is read.
func TestLongLine(t *testing.T) {
	read := 0
	endless := readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = 'a'
		}
		if read == 0 {
			p[0] = '"'
		}
		read += len(p)
		return len(p), nil
	})
	code, _, stderr := execute(endless, "tokenize", "--model", own(t, "tokenizer", "sp.json"))
	if code != cli.Failed || stderr != fmt.Sprintf("lora-data: <stdin>:1: the line has more than %d bytes\n", maxLine) {
		t.Errorf("exit status %d, %q", code, stderr)
	}
	if read > maxLine+1<<20 {
		t.Errorf("%d bytes were read", read)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Only the tokenizer's files are read.
func TestTokenizerFilesOnly(t *testing.T) {
	dir := write(t, map[string]string{
		"tokenizer.json": read(t, own(t, "tokenizer", "sp.json")), "config.json": "{", "model.safetensors": "nonsense", "pytorch_model.bin": "nonsense",
	})
	for range 2 {
		if got := must(t, `"<s>"`, "tokenize", "--model", dir); got != "[1]\n" {
			t.Errorf("got %q", got)
		}
	}
}

func TestInFile(t *testing.T) {
	dir := write(t, map[string]string{"a.jsonl": "\"\"\n1\n"})
	path := filepath.Join(dir, "a.jsonl")
	code, stdout, stderr := execute(strings.NewReader(""), "tokenize", "--in", path, "--model", own(t, "tokenizer", "sp.json"))
	if code != cli.Failed || stdout != "[]\n" || !strings.HasPrefix(stderr, "lora-data: "+path+":2: ") {
		t.Errorf("exit status %d, %q, %q", code, stdout, stderr)
	}
}

// A line is answered though the next one has not come.
func TestAnswersWhileInputPauses(t *testing.T) {
	in, send := io.Pipe()
	receive, out := io.Pipe()
	done := make(chan int)
	go func() {
		code := program.Run(t.Context(), &commandLine{}, []string{"tokenize", "--model", own(t, "tokenizer", "sp.json")}, in, out, io.Discard)
		out.Close()
		done <- code
	}()
	answers := bufio.NewReader(receive)
	for range 3 {
		if _, err := io.WriteString(send, "\"<s>\"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := answers.ReadString('\n'); got != "[1]\n" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	send.Close()
	if code := <-done; code != cli.Done {
		t.Errorf("exit status %d", code)
	}
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

// A signal ends the command while it waits for input.
func TestInterrupt(t *testing.T) {
	c := child(t, "tokenize", "--model", own(t, "tokenizer", "sp.json"))
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "\"<s>\"\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(stdout).ReadString('\n'); got != "[1]\n" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitStatus(t, c.Wait()); code != cli.Interrupted || stderr.String() != "lora-data: interrupted\n" {
		t.Errorf("exit status %d, %q", code, stderr.String())
	}
}

// Who closes the pipe has read enough: that is no failure, and nothing is said.
func TestClosedPipe(t *testing.T) {
	in := filepath.Join(write(t, map[string]string{"in": strings.Repeat("\"<s>\"\n", 1<<18)}), "in")
	c := child(t, "tokenize", "--in", in, "--model", own(t, "tokenizer", "sp.json"))
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReaderSize(stdout, 16).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	stdout.Close()
	if code := exitStatus(t, c.Wait()); code != cli.Done || stderr.String() != "" {
		t.Errorf("exit status %d, %q", code, stderr.String())
	}
}

func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	defer full.Close()
	c := child(t, "tokenize", "--model", own(t, "tokenizer", "sp.json"))
	c.Stdin, c.Stdout = strings.NewReader("\"<s>\"\n"), full
	var stderr strings.Builder
	c.Stderr = &stderr
	want := "standard output: write /dev/stdout: " + syscall.ENOSPC.Error() + "\n"
	if code := exitStatus(t, c.Run()); code != cli.Failed || !strings.HasSuffix(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit status %d, %q", code, stderr.String())
	}
}

// The same vocabulary, texts of llama.cpp's tests, and the ids it gives.
func TestTokenizeLlama(t *testing.T) {
	for model, name := range map[string]string{"llama2": "spm", "llama3": "bpe"} {
		texts, err := os.ReadFile(golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-"+name+".gguf.inp"))
		if err != nil {
			t.Fatal(err)
		}
		var stdin strings.Builder
		for _, text := range strings.Split(string(texts), "\n__ggml_vocab_test__\n") {
			stdin.WriteString(jsonLine(t, text))
		}
		want := read(t, golden.Shared(t, "tokenizers", "llama.cpp", "ggml-vocab-llama-"+name+".gguf.out"))
		got := must(t, stdin.String(), "tokenize", "--model", golden.Shared(t, "tokenizers", model))
		var ids strings.Builder
		for _, line := range strings.Split(want, "\n") {
			ids.WriteString("[" + strings.Join(strings.Fields(line), ",") + "]\n")
		}
		sameLines(t, model, got, ids.String())
	}
}

func FuzzLines(f *testing.F) {
	for _, s := range []string{"\"a\"\n\"<s>\"\n", "[1,2]\n[]", "\xEF\xBB\xBF\"\"", "\"\\ud800\"", "\n\n", "[-1]", "\"\x00\"", "[1", "{}"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	tok, err := tokenizer.Load(filepath.Join(golden.Root(f), "testdata", "tokenizer", "sp.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, decode bool) {
		var c tokenize
		answer := c.encoder(tok)
		if decode {
			answer = c.decoder(tok)
		}
		var stdout bytes.Buffer
		out := bufio.NewWriter(&stdout)
		err := each(t.Context(), newLines(t.Context(), "<stdin>", bytes.NewReader(text), out), out, answer)
		if err != nil && !strings.HasPrefix(err.Error(), "<stdin>:") {
			t.Errorf("the error names no line: %v", err)
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(stdout.String()) {
			if !json.Valid([]byte(line)) || !strings.HasSuffix(line, "\n") {
				t.Errorf("%q is no line of JSON", line)
			}
		}
	})
}
