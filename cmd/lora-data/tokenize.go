package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/tokenizer"
)

// tokenize is the command of that name.
type tokenize struct {
	Model           string `required:"" placeholder:"DIR|FILE" help:"Tokenizer: a directory that holds one, or its file."`
	In              string `placeholder:"FILE" help:"Read lines from a file. Without it: from standard input."`
	Decode          bool   `help:"Turn ids into text instead."`
	Special         bool   `help:"Put the tokenizer's special tokens around a text; with --decode, take them off."`
	NoSpecialInText bool   `name:"no-special-in-text" help:"Read special tokens that are written in a text as plain text."`
}

// Help is the longer help.
func (tokenize) Help() string {
	return `Reads one JSON string a line and writes one JSON array of ids a line; with --decode it reads arrays and writes strings. Lines
are answered as they come, in their order; the first line that is neither ends the command. Only the tokenizer's files are
read: neither weights nor config.json.

Special tokens that are written in a text become their ids, as in Transformers. Nothing is put around a text unless --special
asks for it: then what Transformers adds with add_special_tokens. That is what the post_processor of tokenizer.json says (for
LLaMA BOS; nothing where it has none). A tokenizer.model or .gguf file has none: there it is BOS, unless add_bos_token or
add_eos_token in tokenizer_config.json or in the file's metadata say otherwise.

--decode goes back: all tokens are written out, special ones too, but for what --special puts around a text, if it is given
here as well.

Examples:

  echo '"Aspirin inhibits COX-1."' | lora-data tokenize --model Llama-2-7b-hf
  lora-data tokenize --model Llama-2-7b-hf --in texts.jsonl > ids.jsonl
  lora-data tokenize --model Llama-2-7b-hf --decode --in ids.jsonl`
}

// Run carries the command out.
func (c *tokenize) Run(ctx context.Context, s *cli.Streams) error {
	if c.Decode && c.NoSpecialInText {
		return cli.Usagef("--no-special-in-text is for text, and --decode reads ids")
	}
	tok, err := tokenizer.Load(c.Model, tokenizer.TokenizerFilesOnly())
	if err != nil {
		return err
	}
	for _, w := range tok.Warnings() {
		fmt.Fprintln(s.Err, "lora-data: warning:", w)
	}
	name, in := "<stdin>", s.In
	if c.In != "" {
		f, err := open(ctx, c.In)
		if err != nil {
			return err
		}
		defer f.Close()
		name, in = c.In, f
	}
	answer := c.encoder(tok)
	if c.Decode {
		answer = c.decoder(tok)
	}
	return each(ctx, newLines(ctx, name, in, s.Out), s.Out, answer)
}

// open opens a file. ctx ends the wait for whoever writes to a named pipe.
func open(ctx context.Context, path string) (*os.File, error) {
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done(): // the goroutine ends with its Open or with the process
		return nil, ctx.Err()
	}
}

// answering makes the answer to a line, without its end, and appends it to dst.
type answering func(dst, line []byte) ([]byte, error)

// each answers line by line.
func each(ctx context.Context, in *lines, out *bufio.Writer, answer answering) error {
	var text []byte
	for ctx.Err() == nil {
		line, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if text, err = answer(text[:0], line); err != nil {
			return in.fail(err)
		}
		if _, err := out.Write(append(text, '\n')); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
	}
	return ctx.Err()
}

// encoder answers a string by its ids.
func (c *tokenize) encoder(tok *tokenizer.Tokenizer) answering {
	if c.NoSpecialInText {
		tok = tok.WithoutSpecials()
	}
	encode := tok.Encode
	if c.Special {
		encode = tok.EncodeWithSpecial
	}
	return func(dst, line []byte) ([]byte, error) {
		text, err := readString(line)
		if err != nil {
			return nil, err
		}
		dst = append(dst, '[')
		for i, id := range encode(text) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, int64(id), 10)
		}
		return append(dst, ']'), nil
	}
}

// decoder answers ids by their text.
func (c *tokenize) decoder(tok *tokenizer.Tokenizer) answering {
	var before, after []int32
	if c.Special {
		before, after = around(tok)
	}
	return func(dst, line []byte) ([]byte, error) {
		ids, err := readIDs(line, tok.VocabSize())
		if err != nil {
			return nil, err
		}
		if len(ids) >= len(before) && slices.Equal(ids[:len(before)], before) {
			ids = ids[len(before):]
		}
		if rest := len(ids) - len(after); rest >= 0 && slices.Equal(ids[rest:], after) {
			ids = ids[:rest]
		}
		return appendString(dst, tok.DecodeWithSpecial(ids)), nil
	}
}

// around returns the ids that --special puts before and after a text.
func around(tok *tokenizer.Tokenizer) (before, after []int32) {
	const text = "a"
	ids, inner := tok.EncodeWithSpecial(text), tok.Encode(text)
	for i := 0; i+len(inner) <= len(ids); i++ {
		if slices.Equal(ids[i:i+len(inner)], inner) {
			return ids[:i], ids[i+len(inner):]
		}
	}
	return nil, nil // a post-processor without the text
}

// readString reads a line that is a JSON string.
func readString(line []byte) (string, error) {
	r, err := strictjson.NewReader(line)
	if err != nil {
		return "", err
	}
	if len(line) == 0 {
		return "", errors.New("expected a JSON string, got an empty line")
	}
	text, err := r.String()
	if err != nil {
		return "", err
	}
	return text, r.End()
}

// readIDs reads a line that is a JSON array of ids below size.
func readIDs(line []byte, size int) ([]int32, error) {
	r, err := strictjson.NewReader(line)
	if err != nil {
		return nil, err
	}
	if len(line) == 0 {
		return nil, errors.New("expected a JSON array of ids, got an empty line")
	}
	ids := []int32{}
	err = r.Array(func() error {
		id, err := r.Uint()
		if err != nil {
			return err
		}
		if id >= min(uint64(size), math.MaxInt32) {
			return fmt.Errorf("element %d is %d, and the tokenizer has %d tokens", len(ids), id, size)
		}
		ids = append(ids, int32(id))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, r.End()
}

// appendString appends a JSON string in which only those characters are escaped that must be.
func appendString(dst []byte, s string) []byte {
	return append(dst, bytes.TrimSuffix(strictjson.Format(strings.ToValidUTF8(s, "\uFFFD")), []byte("\n"))...)
}
