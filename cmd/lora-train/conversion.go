package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// conversion tells how far the conversion of a model's weights has come.
type conversion struct {
	w           io.Writer
	base        string // the format that the weights are quantised to; "none" or ""
	terminal    bool   // a line can be drawn over
	start, last time.Time
	done        int64
	drawn       bool
}

// progress draws over its line on a terminal, and writes one now and then elsewhere. What is done within a second is
// not worth a line.
func (c *conversion) progress(done, total int64) {
	c.done = done
	now, every := time.Now(), 10*time.Second
	if c.terminal {
		every = time.Second / 5
	}
	if c.last.IsZero() {
		c.last = c.start.Add(time.Second - every)
	}
	if now.Sub(c.last) < every {
		return
	}
	c.last = now
	what := "converting the weights"
	if c.quantises() {
		what = "quantising the weights to " + c.base
	}
	text := fmt.Sprintf("%s: %.1f of %.1f GB, %.2f GB/s", what, gb(done), gb(total), c.rate())
	if c.terminal {
		fmt.Fprintf(c.w, "\r%-72s", text)
		c.drawn = true
		return
	}
	fmt.Fprintln(c.w, text)
}

func gb(n int64) float64 { return float64(n) / 1e9 }

func (c *conversion) rate() float64 { return gb(c.done) / time.Since(c.start).Seconds() }

// end leaves the line.
func (c *conversion) end() {
	if c.drawn {
		fmt.Fprintln(c.w)
	}
}

func (c *conversion) quantises() bool { return c.base != "" && c.base != "none" }

// summary says where the converted weights are kept, if it was now that they were made or verified.
func (c *conversion) summary(caches []string, verified bool) {
	what := "converted"
	switch {
	case c.done == 0 || len(caches) == 0:
		return
	case verified:
		what = "verified"
	case c.quantises():
		what = "quantised to " + c.base + ":"
	}
	fmt.Fprintf(c.w, "%s %.1f GB of weights in %.1f s (%.2f GB/s), kept in %s\n",
		what, gb(c.done), time.Since(c.start).Seconds(), c.rate(), strings.Join(caches, ", "))
}
