package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/train"
)

// memoryLimit is the limit in bytes, 0 where none is set; validate has looked at it.
func (s *Settings) memoryLimit() int64 {
	n, _ := memory.Parse(s.MemoryLimit)
	return n
}

// printPlan says what the run would take.
func (s *session) printPlan(ctx context.Context) error {
	o := s.options()
	o.OutputDir = s.Out
	if o.OutputDir == "" {
		o.OutputDir = outputRoot // something will be saved; nothing is written now
	}
	if err := s.fitBatch(ctx, &o); err != nil {
		return inFlags(err)
	}
	p, err := train.MakePlan(ctx, s.model, s.adapter, s.tokenizer, s.data, o)
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err != nil {
		return inFlags(err)
	}
	for _, warning := range append(s.warnings, p.Warnings...) {
		fmt.Fprintf(s.stderr, "%-12s %s\n", "warning", visible.Text(warning))
	}
	if note := s.model.Note(); note != "" {
		fmt.Fprintf(s.stderr, "%-12s %s\n", "note", visible.Text(note))
	}
	planTable(s.stdout, p, s.model.BackendName())
	return nil
}

// planTable writes a plan.
func planTable(w io.Writer, p *train.Plan, backend string) {
	m, l := &p.Memory, &p.Load
	line := func(key string, bytes int64, format string, a ...any) {
		text := fmt.Sprintf("%-12s %10s  %s", key, memory.Format(bytes), fmt.Sprintf(format, a...))
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	fmt.Fprintf(w, "%-12s at most %s tokens, %s of them with a label; rows of up to %s tokens\n", "micro-batch",
		visible.Count(int64(l.Rows)), visible.Count(int64(l.Selected)), visible.Count(int64(l.Keys)))
	if m.Card != "" {
		cardTable(w, line, p)
		return
	}
	line("weights", m.Mapped, "in mapped files: the system's pages, not counted below")
	if m.Stream != nil {
		line("streaming", m.Stream.Bytes, "%s", report.Streaming(m.Stream))
	}
	line("program", m.Program, "with tokenizer and data")
	line("adapter", m.Adapter, "values and gradients of %s parameters", visible.Count(p.TrainableParameters))
	line("optimizer", m.Optimizer, "AdamW's moments")
	line("activations", m.Activations, "%s", report.Keeping(&p.Memory))
	line("scratch", m.Scratch, "")
	line("saving", m.Extra, "the adapter while it is written, and the best one so far if it is kept")
	line("peak", m.Peak, "%s", report.Limited(&p.Memory))
	calibrated := "on " + backend + ", by a calibration"
	if m.Stream != nil {
		calibrated += "; more where the disk is slower"
	}
	fmt.Fprintf(w, "%-12s %10s  %s\n", "a step", duration(p.StepSeconds), calibrated)
	fmt.Fprintf(w, "%-12s %10s  for %s steps, evaluations and saving apart\n", "the run", duration(p.StepSeconds*float64(p.Steps)), visible.Count(int64(p.Steps)))
}

// cardTable writes what a run takes of a card. How long a step is there is not measured: that would need the weights.
func cardTable(w io.Writer, line func(key string, bytes int64, format string, a ...any), p *train.Plan) {
	m := &p.Memory
	fmt.Fprintf(w, "%-12s %s\n", "on", visible.Text(m.Card))
	line("weights", m.Weights, "copied to the card when the run begins")
	line("adapter", m.Adapter, "values and gradients of %s parameters", visible.Count(p.TrainableParameters))
	line("optimizer", m.Optimizer, "AdamW's moments")
	line("activations", m.Activations, "%s", report.Keeping(m))
	line("scratch", m.Scratch, "")
	line("peak", m.Peak, "%s", report.Limited(m))
	line("host", m.Host, "what the process takes beside it, two copies of the adapter among that")
}

func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 100*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// collector keeps garbage from adding to what a run takes: it gives back what reading has left, and lets the collector
// start in time to stay near the plan, instead of at twice what is in use.
type collector struct {
	train.NopHook
	before int64 // the limit that there was
}

// slack, and a twentieth, is what garbage may take beyond the plan.
const slack = 32 << 20

// Begin is told the plan, when all that it counts has been allocated.
func (c *collector) Begin(p train.Plan) error {
	peak := p.Memory.Peak
	if p.Memory.Card != "" {
		peak = p.Memory.Host
	}
	debug.SetMemoryLimit(min(c.before, peak+peak/20+slack))
	debug.FreeOSMemory()
	return nil
}

// newCollector notes the limit that the environment sets (GOMEMLIMIT), which holds on.
func newCollector() *collector { return &collector{before: debug.SetMemoryLimit(-1)} }

// end brings it back.
func (c *collector) end() { debug.SetMemoryLimit(c.before) }
