package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/rows"
)

// bar shows how far a command is: drawn over its line on a terminal and, where the end is known, a line now and then
// elsewhere.
type bar struct {
	*progressbar.ProgressBar // nil: no terminal

	w           io.Writer
	up          int
	what        string
	start, last time.Time
}

// every is how often a line is written that cannot be drawn over.
const every = 20 * time.Second

// newBar returns a bar that goes up to a number, or counts where that is -1.
func newBar(w io.Writer, up int, what string) *bar {
	b := &bar{w: w, up: up, what: what, start: time.Now(), last: time.Now()}
	if !report.StyleOf(w).Terminal {
		return b
	}
	b.ProgressBar = progressbar.NewOptions(up,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionUseANSICodes(true),
	)
	return b
}

// set shows a number. What a terminal does not take is no reason to stop.
func (b *bar) set(n int) {
	if b.up >= 0 {
		n = min(n, b.up)
	}
	if b.ProgressBar != nil {
		_ = b.Set(n)
		return
	}
	now := time.Now()
	if b.up < 0 || n == 0 || now.Sub(b.last) < every {
		return
	}
	b.last = now
	rate := float64(n) / now.Sub(b.start).Seconds()
	left := time.Duration(float64(b.up-n) / rate * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(b.w, "%d of %d %s  %.2f/s  left %s\n", n, b.up, b.what, rate, left)
}

// end takes the bar away.
func (b *bar) end() {
	if b.ProgressBar != nil {
		_ = b.Clear()
	}
}

// reading returns a bar that shows how much of files has been read, and a context to read them under.
func reading(ctx context.Context, w io.Writer, files []string) (context.Context, *bar) {
	const kilo = 1000
	total := int64(0)
	for _, file := range files {
		if info, err := os.Stat(file); err == nil { // what is absent is told by who reads it
			total += info.Size()
		}
	}
	b := newBar(w, max(1, int(total/kilo)), "kB read")
	return rows.WithProgress(ctx, func(read int64) { b.set(int(read / kilo)) }), b
}
