package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/backend/cpu"
	"github.com/biolora/biolora/internal/backend/device"
	"github.com/biolora/biolora/internal/backend/profile"
	"github.com/biolora/biolora/internal/benchmark"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/report"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/model"
)

// What a benchmark does in about a minute.
const (
	benchLayers   = 2                // of the made-up model
	benchSteps    = 7                // that count, if there is time for them
	benchWarm     = 1                // that do not
	benchMost     = 20 * time.Second // after the warm steps
	benchStep     = 15               // seconds that a step may be expected to take; for longer ones the batch is made smaller
	benchExpect   = 0.7              // share of the ceiling that is expected
	benchLeast    = 16               // tokens of a step
	benchDecoded  = 16
	benchPrompt   = 32
	benchBusy     = 0.5       // programs that ran on average, from which on there is a warning
	benchUncached = 256 << 20 // bytes of weights that no cache holds
)

// bench measures this machine: session.benchmark in steps.
type bench struct {
	*session
	ceiling ceiling
	madeUp  bool // the model is
	cut     bool // the batch was made smaller
	result  *benchmark.Result
	decoded float64 // seconds a token
}

// benchmark tells how fast this machine is at a run with these settings. It writes nothing, so that an interrupt ends it
// at once: what computes then is left to the end of the process.
func (s *session) benchmark(ctx context.Context) error {
	b := &bench{session: &session{Run: s.Run, out: s.out, stdout: s.stdout, stderr: s.stderr, watch: new(model.Profile)}}
	done := make(chan error, 1)
	go func() {
		defer b.close()
		done <- b.measure(ctx)
	}()
	select {
	case err := <-done:
		if ctx.Err() != nil {
			return errInterrupted
		}
		return inFlags(err)
	case <-ctx.Done():
		return errInterrupted
	}
}

func (b *bench) measure(ctx context.Context) error {
	if err := b.absolute(); err != nil {
		return err
	}
	b.madeUp = b.Settings.Model == ""
	if !b.madeUp { // what is wrong with it is told before anything is measured
		if err := b.openGiven(ctx); err != nil {
			return err
		}
	}
	if err := b.machine(); err != nil {
		return err
	}
	if b.madeUp {
		if err := b.makeUp(ctx); err != nil {
			return err
		}
	}
	if err := b.shorten(); err != nil {
		return err
	}
	b.describe()
	var err error
	b.result, err = benchmark.Run(ctx, benchmark.Case{
		Model: b.model, Profile: b.watch, Adapter: b.adapter, Tokenizer: b.tokenizer, Data: b.data, Train: b.options(),
		Warm: benchWarm, Steps: benchSteps, Most: benchMost,
	})
	if err != nil {
		return err
	}
	b.steps()
	b.kinds()
	if b.decoded, err = benchmark.Decode(ctx, b.model, benchPrompt, benchDecoded); err != nil {
		return err
	}
	b.rest()
	return nil
}

// ceiling is the most that the device could reach.
type ceiling struct{ Products, Reading float64 }

// machine measures what products and reading could reach.
func (b *bench) machine() error {
	be, why, err := device.Open(device.Options{Name: b.Device, Compute: b.Compute, Threads: b.Threads, Features: b.CPUFeatures, Streamed: b.Stream == "always"})
	if err != nil {
		return err
	}
	defer be.Close()
	total := ""
	if bytes, ok := memory.Total(); ok {
		total = ", " + memory.Format(bytes)
	}
	b.line("machine", "%s%s", benchmark.CPU(), total)
	if load, ok := benchmark.Load(); ok && load > benchBusy {
		b.line("warning", "the machine is busy (a load of %.1f over the last minute): the figures will be too low", load)
	}
	b.line("computes", "%s", be.Name())
	for _, note := range []string{be.Note(), why} {
		if note != "" {
			b.line("", "%s", note)
		}
	}
	switch be := be.(type) {
	case device.Card:
		return b.card(be)
	case *cpu.Backend:
		b.ceiling = ceiling(be.Ceiling())
		debug.FreeOSMemory() // what was read
		b.line("ceiling", "%s of products, the kernel alone on operands in cache", rate(b.ceiling.Products))
		b.line("", "%.1f GB/s of reading memory", b.ceiling.Reading/1e9)
	}
	return nil
}

// card measures the most that a card could reach.
func (b *bench) card(be device.Card) error {
	c, err := be.Ceiling()
	if err != nil {
		return err
	}
	room, err := be.Room()
	if err != nil {
		return err
	}
	b.ceiling = ceiling{c.Products, c.Memory}
	b.line("", "%s of memory, %s of it free", memory.Format(room.Total), memory.Format(room.Free+room.Held))
	b.line("ceiling", "%s of products: one of large square matrices", rate(c.Products))
	b.line("", "%.1f GB/s of memory: copies within it, read and written", c.Memory/1e9)
	return nil
}

// openGiven opens model and data.
func (b *bench) openGiven(ctx context.Context) (err error) {
	if len(b.Data) > 0 {
		if err := b.openData(ctx); err != nil {
			return err
		}
	}
	return b.openModel(ctx)
}

// madeUpSizes are those of the made-up model: LLaMA-2 7B's, of fewer layers. Tests make it smaller.
var madeUpSizes = func() benchmark.Sizes {
	s := benchmark.Llama7B
	s.Layers = benchLayers
	return s
}()

func (b *bench) makeUp(ctx context.Context) (err error) {
	if b.model, err = model.Random(ctx, madeUpSizes.Config(), b.Seed, b.modelOptions()); err != nil {
		return err
	}
	return b.openAdapter()
}

// shorten makes the batch so small that a step takes a few seconds, and makes up rows where none are given.
func (b *bench) shorten() error {
	size := b.BatchSize.rows()
	rows := size * b.Accumulation
	forward, backward := b.model.Work(1, 1)
	affordable := int(max(benchLeast, benchStep*benchExpect*b.ceiling.Products/(forward+backward)))
	if most := max(1, int(float64(affordable)/benchmark.BioInstructTokens+0.5)); rows > most {
		b.cut = true
		b.Accumulation = max(1, min(b.Accumulation, most/size))
		size = min(size, most)
		rows = size * b.Accumulation
	}
	b.BatchSize = microBatch(size)
	if b.data != nil {
		return nil
	}
	c := b.model.Config()
	shape := benchmark.Shape{Rows: rows, Vocab: c.VocabSize, MostTokens: c.MaxPositionEmbeddings}
	if b.MaxSeqLength > 0 {
		shape.MostTokens = min(shape.MostTokens, b.MaxSeqLength)
	}
	if rows == 1 {
		shape.MostTokens = min(shape.MostTokens, affordable)
	}
	b.NoShuffle = true // so that each step has the same rows
	var err error
	b.data, err = benchmark.MakeRows(shape)
	return err
}

// describe says what is going to be measured.
func (b *bench) describe() {
	if b.madeUp {
		b.line("model", "made up: LLaMA-2 7B's width, %d layers and the head, random bf16 numbers in memory", benchLayers)
	} else {
		b.line("model", "%s", b.Settings.Model)
	}
	if b.Base != "none" {
		b.line("", "layers quantised to %s", b.Base)
	}
	b.line("adapter", "%s", adapted(b.adapter))
	if len(b.Data) > 0 {
		b.line("rows", "%s", strings.Join(b.Data, ", "))
	} else {
		b.line("rows", "made up: as long as BioInstruct's, as many labels, in the Alpaca template")
	}
	text := fmt.Sprintf("%d a micro-batch", b.BatchSize)
	if b.Accumulation > 1 {
		text += fmt.Sprintf(", %d micro-batches a step", b.Accumulation)
	}
	if b.cut {
		text += "; fewer than asked for, so that this takes a minute"
	}
	b.line("", "%s", text)
	for _, w := range b.warnings {
		b.line("warning", "%s", w)
	}
}

// steps says how fast training is.
func (b *bench) steps() {
	r := b.result
	step, least, most := &r.Median, math.Inf(1), 0.0
	for i := range r.Steps {
		least, most = min(least, r.Steps[i].Seconds()), max(most, r.Steps[i].Seconds())
	}
	for _, w := range r.Plan.Warnings {
		b.line("warning", "%s", w)
	}
	b.line("keeps", "%s", report.Keeping(&r.Plan.Memory))
	fmt.Fprintln(b.stdout)
	text := duration(step.Seconds())
	if len(r.Steps) > 1 {
		text += fmt.Sprintf(", the median of %d (%s to %s)", len(r.Steps), duration(least), duration(most))
	}
	b.line("a step", "%s, after %d that did not count", text, benchWarm)
	b.line("", "%s tokens in its rows, %s computed (heads that rows share are so once), %s given to the head",
		visible.Count(int64(step.Tokens)), visible.Count(int64(step.Rows)), visible.Count(int64(step.Selected)))
	b.line("speed", "%s tokens/s", number(float64(step.Tokens)/step.Seconds()))
	forward, backward := b.model.Work(step.Rows, step.Selected)
	flops := (forward + backward) / step.Seconds()
	b.line("", "%s in the products with frozen weights that the step needs: %.0f %% of the ceiling", rate(flops), 100*flops/b.ceiling.Products)
}

// kinds says where the time of the median step went.
func (b *bench) kinds() {
	step := &b.result.Median
	fmt.Fprintf(b.stdout, "\nwhere the time of that step went\n")
	if b.model.OnCard() {
		fmt.Fprintln(b.stdout, "  (each operation is waited for, so that a step takes longer than one without a profile; low-rank branches count with the weights)")
	}
	for work, spent := range step.Spent {
		if work != int(profile.Other) {
			b.kind(profile.Work(work), spent)
		}
	}
	b.kind(profile.Other, step.Spent[profile.Other])
	fmt.Fprintln(b.stdout)
}

func (b *bench) kind(work profile.Work, spent time.Duration) {
	text := fmt.Sprintf("  %-25s %9s %5.1f %%", work, duration(spent.Seconds()), 100*spent.Seconds()/b.result.Median.Seconds())
	fmt.Fprintln(b.stdout, text+b.share(work, spent))
}

// share tells the rate of products with weights, where all that they compute is counted.
func (b *bench) share(work profile.Work, spent time.Duration) string {
	m := &b.result.Plan.Memory
	if m.Kept < m.Layers || work != profile.Forward && work != profile.Backward {
		return ""
	}
	forward, backward := b.model.Work(b.result.Median.Rows, 0)
	flops := forward
	if work == profile.Backward {
		flops = backward
	}
	return fmt.Sprintf("  %.0f %% of the ceiling", 100*flops/spent.Seconds()/b.ceiling.Products)
}

// rest says what decoding takes, what memory, and what that comes to for whole trainings.
func (b *bench) rest() {
	read := float64(b.model.Weights())
	text := fmt.Sprintf("%s tokens/s of one text: weights at %.1f GB/s", number(1/b.decoded), read/b.decoded/1e9)
	if read >= benchUncached {
		text += fmt.Sprintf(", %.0f %% of the reading rate", 100*read/b.decoded/b.ceiling.Reading)
	}
	b.line("decoding", "%s", text)
	plan := &b.result.Plan.Memory
	text = fmt.Sprintf("%s planned", memory.Format(plan.Peak))
	if use := b.result.Memory; b.result.MemoryKnown {
		text += fmt.Sprintf("; %s of the process's own, %s of mapped files", memory.Format(use.Own), memory.Format(use.File))
	}
	b.line("memory", "%s", text)
	fmt.Fprintln(b.stdout)
	if !b.madeUp {
		b.line("estimate", "BioInstruct, %s rows, 3 epochs on this model: %s", visible.Count(benchmark.BioInstructRows),
			b.epochs(b.result.Median.Seconds(), 3))
		return
	}
	b.line("estimate", "by layers and width, for all layers of a model whose weights fit in memory, if its layers keep as much:")
	b.extrapolate("LLaMA-2 7B", benchmark.Llama7B)
	b.extrapolate("LLaMA-2 13B", benchmark.Llama13B)
}

func (b *bench) extrapolate(name string, to benchmark.Sizes) {
	step := &b.result.Median
	forward, backward := b.model.Work(step.Rows, 0)
	seconds := step.Extrapolate(madeUpSizes, to, forward, backward)
	decoded := b.decoded * benchmark.ExtrapolateWeights(madeUpSizes, to, b.model.Weights()) / float64(b.model.Weights())
	b.line("", "%-11s %s tokens/s; BioInstruct's %s rows, 3 epochs: %s; decoding %s tokens/s", name,
		number(float64(step.Tokens)/seconds), visible.Count(benchmark.BioInstructRows), b.epochs(seconds, 3), number(1/decoded))
}

// epochs is how long so many of BioInstruct's take, where a step on the measured rows takes that many seconds.
func (b *bench) epochs(seconds float64, n int) string {
	tokens := float64(n) * benchmark.BioInstructRows * benchmark.BioInstructTokens
	hours := tokens * seconds / float64(b.result.Median.Tokens) / 3600
	if hours < 1 {
		return number(60*hours) + " minutes"
	}
	return number(hours) + " hours"
}

func (b *bench) line(key, format string, a ...any) { field(b.stdout, key, format, a...) }

// field writes a line of a report.
func field(w io.Writer, key, format string, a ...any) {
	fmt.Fprintf(w, "%-11s %s\n", key, visible.Text(fmt.Sprintf(format, a...)))
}

// rate writes FLOP/s.
func rate(flops float64) string {
	if flops >= 1e12 {
		return fmt.Sprintf("%.2f TFLOP/s", flops/1e12)
	}
	return fmt.Sprintf("%.3g GFLOP/s", flops/1e9)
}

// number writes about three digits.
func number(x float64) string {
	switch {
	case x >= 100:
		return visible.Count(int64(x + 0.5))
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// benchmarks says what is wrong with a command line for a benchmark. A configuration file may be that of a run.
func (r *Run) benchmarks(flags []string) error {
	var errs []error
	for _, key := range []string{"out", "overwrite"} {
		if slices.Contains(flags, key) {
			errs = append(errs, fmt.Errorf("--benchmark writes no files: --%s says nothing", key))
		}
	}
	if r.Plan {
		errs = append(errs, errors.New("--plan and --benchmark are both given"))
	}
	if r.Settings.Model != "" {
		return errors.Join(errs...)
	}
	if len(r.Data) > 0 {
		errs = append(errs, errors.New("--benchmark with --data needs --model: a made-up model has no tokenizer"))
	}
	if r.Adapter != "" {
		errs = append(errs, errors.New("--benchmark with --adapter needs --model: the adapter is one of that"))
	}
	return errors.Join(errs...)
}
