package main

import (
	"fmt"
	"io"
	"time"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/visible"
)

// progress tells how far a run has come: over its line on a terminal, and a line now and then elsewhere.
type progress struct {
	w           io.Writer
	style       report.Style
	start, last time.Time
	resumed     int // rows that were there
	drawn       bool
	noted       string // the last note
}

// every is how often a line is written that cannot be drawn over.
const every = 20 * time.Second

func (p *progress) tell(x eval.Progress) {
	now := time.Now()
	if p.start.IsZero() {
		p.start, p.last, p.resumed = now, now, x.Resumed
		if x.Resumed > 0 {
			fmt.Fprintf(p.w, "%d of %d answers are there already\n", x.Resumed, x.Total)
		}
		return
	}
	if x.Note != "" {
		p.end()
		p.drawn = false
		fmt.Fprintln(p.w, visible.Text(x.Note))
		return
	}
	if !p.style.Terminal && now.Sub(p.last) < every && x.Done < x.Total {
		return
	}
	p.last = now
	p.line("%d/%d rows  %s, %s  %s", x.Done, x.Total, visible.Text(x.System), x.Task, p.rate(now, x))
}

// rate is the speed of this call, and what is left at it.
func (p *progress) rate(now time.Time, x eval.Progress) string {
	seconds, done := now.Sub(p.start).Seconds(), x.Done-p.resumed
	if seconds <= 0 || done == 0 {
		return ""
	}
	left := time.Duration(float64(x.Total-x.Done) * seconds / float64(done) * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%.2f rows/s  %.0f tokens/s  left %s", float64(done)/seconds, float64(x.Tokens)/seconds, left)
}

// converting tells how far the weights are converted or quantised, which takes long for large models only.
func (p *progress) converting(done, total int64) {
	now := time.Now()
	wait := every
	if p.style.Terminal {
		wait = time.Second / 5
	}
	if now.Sub(p.last) < wait {
		return
	}
	p.last = now
	p.line("converting the weights: %.1f of %.1f GB", float64(done)/1e9, float64(total)/1e9)
}

// note tells once what is worth knowing about the device: models are opened one after the other.
func (p *progress) note(text string) {
	if text == p.noted {
		return
	}
	p.end()
	p.drawn, p.noted = false, text
	fmt.Fprintln(p.w, visible.Text(text))
}

func (p *progress) line(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if !p.style.Terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	if n := p.style.Width - 1; n > 0 && len(text) > n {
		text = text[:n]
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	p.drawn = true
}

// end leaves the line.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprintln(p.w)
	}
}
