// Package report draws a training run: the summary before its first step, the first example with its mask, the
// progress, and what the run came to. It only draws: what it shows are the plan and the events of package train.
package report

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train"
)

// Style is how a writer is drawn on.
type Style struct {
	Terminal bool // lines can be drawn over: progress is a bar
	Color    bool // text can be dimmed
	Width    int  // columns of the terminal
}

// StyleOf finds the style of w: plain, unless w is a terminal. NO_COLOR (https://no-color.org) turns dimming off,
// TERM=dumb the bar as well.
func StyleOf(w io.Writer) Style {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return Style{}
	}
	s := Style{Terminal: true, Color: os.Getenv("NO_COLOR") == "", Width: 80}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		s.Width = width
	}
	return s
}

// Run is what the summary says of a run beside its plan.
type Run struct {
	Model    string   // the checkpoint's directory
	Data     []string // the data files
	Backend  string   // what computes
	Compute  string   // f32 or bf16
	Note     string   // about Compute; may be empty
	Adapter  string   // what is trained, in a line
	Start    string   // the adapter it starts from; empty for a fresh one
	Output   string   // the output directory
	Warnings []string // beside the plan's

	Streamed func() (model.StreamStats, bool) // what was read of weights that are streamed; may be nil
}

// Report draws one run on one writer. It is a train.Hook.
type Report struct {
	w     io.Writer
	style Style
	run   Run
	plan  train.Plan
	bar   *progressbar.ProgressBar
	now   func() time.Time

	start, lastLine time.Time
	tokens          int     // since the start
	seconds         float64 // the steps' own, since the start
}

// New returns a report that draws on w.
func New(w io.Writer, s Style, r Run) *Report {
	return &Report{w: w, style: s, run: r, now: time.Now}
}

// Begin draws the summary, the first example, and an empty bar.
func (r *Report) Begin(p train.Plan) error {
	r.plan = p
	r.start, r.lastLine = r.now(), r.now()
	r.summary()
	r.example()
	if r.style.Terminal {
		r.bar = progressbar.NewOptions(p.Steps,
			progressbar.OptionSetWriter(r.w),
			progressbar.OptionSetWidth(max(10, min(40, r.style.Width-75))),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionUseANSICodes(true),
			progressbar.OptionOnCompletion(func() { fmt.Fprintln(r.w) }),
			progressbar.OptionSetRenderBlankState(true),
		)
	}
	return nil
}

func (r *Report) line(key, format string, a ...any) {
	fmt.Fprintf(r.w, "%-11s %s\n", key, visible.Text(fmt.Sprintf(format, a...)))
}

func (r *Report) summary() {
	p, rows := &r.plan, &r.plan.Rows
	r.line("model", "%s", r.run.Model)
	r.line("adapter", "%s", r.run.Adapter)
	if r.run.Start != "" {
		r.line("", "starts from %s", r.run.Start)
	}
	r.line("compute", "%s on %s", r.run.Compute, r.run.Backend)
	if r.run.Note != "" {
		r.line("", "%s", r.run.Note)
	}
	r.line("parameters", "%s trained, %s in all", visible.Count(p.TrainableParameters), visible.Count(p.TotalParameters))
	r.line("data", "%s", strings.Join(r.run.Data, ", "))
	r.line("rows", "%d read: %d to train on, %d held out; %d cut at %d tokens, %d skipped without a label, %d bad",
		rows.Read, rows.Train, rows.Eval, rows.Cut, p.MaxSeqLength, rows.NoLabel, rows.Bad)
	r.line("tokens", "%s to read, %s to learn", visible.Count(rows.Tokens), visible.Count(rows.LabelTokens))
	if rows.Shared > 0 {
		r.line("", "%s of those to read (%.0f %%) are computed once for several rows that begin with them",
			visible.Count(rows.Shared), 100*float64(rows.Shared)/float64(rows.Tokens))
	}
	r.line("steps", "%d, %d of them warm-up (%.3g epochs)", p.Steps, p.WarmupSteps, p.Epochs)
	if m := &p.Memory; m.Peak > 0 {
		r.line("memory", "%s %s", memory.Format(m.Peak), Limited(m))
		r.line("", "%s", Keeping(m))
		if m.Stream != nil {
			r.line("", "streams %s from disk: %s", gigabytes(m.Stream.Bytes), Streaming(m.Stream))
		}
	}
	r.line("output", "%s", r.run.Output)
	for _, warning := range append(append([]string(nil), r.run.Warnings...), p.Warnings...) {
		r.line("warning", "%s", warning)
	}
}

// Step moves the bar, or writes a line now and then.
func (r *Report) Step(e train.StepEvent) error {
	r.tokens += e.Tokens
	r.seconds += e.Seconds
	if e.Step == 1 {
		r.streamed()
	}
	if r.bar != nil {
		r.bar.Describe(fmt.Sprintf("loss %.4f  lr %.2e  %s tok/s", e.Loss, e.LR, r.rate()))
		_ = r.bar.Set(e.Step) // what cannot be drawn does not stop a run
		return nil
	}
	if !r.due(e.Step) {
		return nil
	}
	r.lastLine = r.now()
	fmt.Fprintf(r.w, "step %d/%d  epoch %.2f  loss %.4f  grad norm %.3g  lr %.2e  %s tokens/s  left %s\n",
		e.Step, r.plan.Steps, e.Epoch, e.Loss, e.GradNorm, e.LR, r.rate(), r.left(e.Step))
	return nil
}

// due says whether a plain line is written for a step: the first, the last, about twenty between them, and one at
// least twice a minute.
func (r *Report) due(step int) bool {
	return step == 1 || step == r.plan.Steps || step%max(1, r.plan.Steps/20) == 0 ||
		r.now().Sub(r.lastLine) >= 30*time.Second
}

func (r *Report) rate() string {
	if r.seconds <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(r.tokens)/r.seconds)
}

func (r *Report) left(step int) time.Duration {
	perStep := r.now().Sub(r.start) / time.Duration(max(1, step))
	return (perStep * time.Duration(max(0, r.plan.Steps-step))).Round(time.Second)
}

// Eval writes a line.
func (r *Report) Eval(e train.EvalEvent) error {
	r.above(fmt.Sprintf("evaluation at step %d: loss %.4f, perplexity %.4g", e.Step, e.EvalLoss, e.Perplexity))
	return nil
}

// streamed says what the disk is like, where weights are streamed.
func (r *Report) streamed() {
	if r.run.Streamed == nil {
		return
	}
	if s, ok := r.run.Streamed(); ok {
		r.above("streaming: " + streamed(s))
	}
}

// above writes a line, above the bar.
func (r *Report) above(line string) {
	if r.bar != nil && !r.bar.IsFinished() {
		_ = r.bar.Clear()
	}
	fmt.Fprintln(r.w, line)
	if r.bar != nil && !r.bar.IsFinished() {
		_ = r.bar.RenderBlank()
	}
}

// End leaves the bar behind.
func (r *Report) End(train.Result) error {
	r.Close()
	return nil
}

// Close ends the bar's line, also when the run ended in an error.
func (r *Report) Close() {
	if r.bar == nil {
		return
	}
	if !r.bar.IsFinished() {
		_ = r.bar.Exit()
		fmt.Fprintln(r.w)
	}
	r.bar = nil
}

// Summary writes what a run came to, and where it lies.
func Summary(w io.Writer, res train.Result, dir string) {
	how := "done"
	if res.Interrupted {
		how = "interrupted"
	}
	fmt.Fprintf(w, "%-11s %d steps in %s, last loss %.4f\n", how, res.Steps, duration(res.Seconds), res.Loss)
	if !math.IsNaN(res.EvalLossBefore) {
		fmt.Fprintf(w, "%-11s held-out loss %.4f before%s\n", "evaluation", res.EvalLossBefore, after(res.EvalLoss))
	}
	if res.BestStep > 0 {
		fmt.Fprintf(w, "%-11s held-out loss %.4f at step %d, in best/\n", "best", res.BestEvalLoss, res.BestStep)
	}
	fmt.Fprintf(w, "%-11s %s\n", "adapter", dir)
}

// after is nothing where the adapter that is left was not evaluated: the run was interrupted.
func after(loss float64) string {
	if math.IsNaN(loss) {
		return ""
	}
	return fmt.Sprintf(", %.4f after", loss)
}

func duration(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}
