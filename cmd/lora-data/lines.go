package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/biolora/biolora/internal/strictjson"
)

// maxLine is the number of bytes that a line may have, some times the longest novel. Making ids of one word takes up to
// 90 bytes of memory for each.
const maxLine = 8 << 20

// lines reads a stream line by line, one in memory at a time.
type lines struct {
	name   string
	r      *bufio.Reader
	buf    []byte
	number int // of the last line, from 1
}

// newLines reads src. Before it waits for more of it, out is flushed; ctx ends the waiting.
func newLines(ctx context.Context, name string, src io.Reader, out *bufio.Writer) *lines {
	return &lines{name: name, r: bufio.NewReaderSize(&pausing{ctx: ctx, src: src, out: out}, 1<<16)}
}

// next returns the next line without its end; io.EOF after the last one. The bytes are valid until the call after it.
func (l *lines) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf) == 0 && len(part) > 0 {
			l.number++
		}
		if len(l.buf)+len(part) > maxLine {
			return nil, l.fail(fmt.Errorf("the line has more than %d bytes", maxLine))
		}
		l.buf = append(l.buf, part...)
		switch {
		case err == bufio.ErrBufferFull:
		case err == io.EOF && len(l.buf) == 0:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			return nil, err // the file's, which names it, or that of the output
		default:
			return l.clean(), nil
		}
	}
}

// clean drops the end of the line, and a byte order mark at the beginning of the first one.
func (l *lines) clean() []byte {
	line := bytes.TrimRight(l.buf, "\r\n")
	if l.number == 1 {
		line = bytes.TrimPrefix(line, []byte("\xEF\xBB\xBF"))
	}
	return line
}

// fail says in which line something is wrong, and at which of its bytes.
func (l *lines) fail(err error) error {
	var place *strictjson.Error
	if errors.As(err, &place) {
		return fmt.Errorf("%s:%d: byte %d of the line: %s", l.name, l.number, place.Offset, place.Msg)
	}
	return fmt.Errorf("%s:%d: %w", l.name, l.number, err)
}

// pausing reads src. Before it waits, it writes out what is written so far, so that whoever sends a line and waits for
// its answer gets it. The end of ctx ends a wait, which a Read of a terminal or a pipe would not let happen.
type pausing struct {
	ctx context.Context
	src io.Reader
	out *bufio.Writer
	buf [1 << 16]byte
}

func (p *pausing) Read(dst []byte) (int, error) {
	if err := p.out.Flush(); err != nil {
		return 0, fmt.Errorf("standard output: %w", err)
	}
	type read struct {
		n   int
		err error
	}
	done := make(chan read, 1)
	go func() {
		n, err := p.src.Read(p.buf[:min(len(dst), len(p.buf))])
		done <- read{n, err}
	}()
	select {
	case r := <-done:
		return copy(dst, p.buf[:r.n]), r.err
	case <-p.ctx.Done(): // the goroutine ends with its Read or with the process, and nobody looks at buf any more
		return 0, p.ctx.Err()
	}
}
