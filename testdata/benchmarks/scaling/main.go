// Command scaling measures how the time of a training step for each token depends on the tokens of a batch, on layers,
// width and rank, and on threads: on made-up models, with package train's own loop. It writes the figures (.csv) and the
// curves (.svg).
//
//	go run ./testdata/benchmarks/scaling -out testdata/benchmarks/scaling
//
// Figures are medians of some steps after one that does not count, by the clock: nothing else should run. It takes about
// two minutes where products reach 1 TFLOP/s.
package main

import (
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/benchmark"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
)

// setting is the point that all curves go through: a sweep changes one of its fields.
type setting struct{ tokens, layers, width, rank, threads int }

func usual() setting {
	return setting{tokens: 1024, layers: 2, width: 2048, rank: 16, threads: runtime.GOMAXPROCS(0)}
}

const (
	rowTokens = 256  // of a row; a smaller batch is one shorter row
	headDim   = 128  // as in all of LLaMA and LLaMA-2
	vocab     = 1024 // so small that the head takes no part in the curves
)

// sweep is one curve.
type sweep struct {
	name, unit string
	values     []int
	set        func(*setting, int)
	// expected is how the time depends on the value, up to a factor; law says so.
	expected func(x float64) float64
	law      string
}

func sweeps() []sweep {
	constant := func(float64) float64 { return 1 }
	return []sweep{
		{"tokens", "tokens a batch", []int{16, 32, 64, 128, 256, 512, 1024, 2048, 4096}, func(s *setting, v int) { s.tokens = v }, constant, "constant"},
		{"layers", "layers", []int{1, 2, 3, 4, 6, 8}, func(s *setting, v int) { s.layers = v }, func(x float64) float64 { return x }, "proportional"},
		{"width", "hidden size", []int{512, 1024, 1536, 2048, 3072, 4096}, func(s *setting, v int) { s.width = v }, func(x float64) float64 { return x * x }, "its square"},
		{"rank", "rank, all linears", []int{4, 8, 16, 32, 64, 128}, func(s *setting, v int) { s.rank = v }, constant, "constant"},
		{"threads", "threads", threads(), func(s *setting, v int) { s.threads = v }, func(x float64) float64 { return 1 / x }, "inverse"},
	}
}

// threads are powers of two up to all, and all.
func threads() (list []int) {
	for n := 1; n < runtime.GOMAXPROCS(0); n *= 2 {
		list = append(list, n)
	}
	return append(list, runtime.GOMAXPROCS(0))
}

// point is what was measured at one setting.
type point struct {
	value   int
	seconds float64 // for each token
	flops   float64 // of the products with frozen weights, a second
}

func main() {
	out := flag.String("out", "scaling", "write `NAME`.csv and NAME.svg")
	steps := flag.Int("steps", 3, "steps that count, for each point")
	only := flag.String("sweeps", "tokens,layers,width,rank,threads", "which curves")
	compute := flag.String("compute", "auto", "f32 or bf16")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *steps, strings.Split(*only, ","), *compute); err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string, steps int, only []string, compute string) error {
	var chosen []sweep
	for _, s := range sweeps() {
		if slices.Contains(only, s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) != len(only) || steps < 1 {
		return fmt.Errorf("%d steps of the sweeps %v: there are tokens, layers, width, rank, threads, and a step is needed", steps, only)
	}
	var curves []curve
	var computes string
	for _, s := range chosen {
		c := curve{sweep: s}
		for _, v := range s.values {
			at := usual()
			s.set(&at, v)
			p, name, err := measure(ctx, at, steps, compute, s.name == "rank")
			if err != nil {
				return fmt.Errorf("%s %d: %w", s.name, v, err)
			}
			p.value, computes = v, name
			fmt.Fprintf(os.Stderr, "%s %d: %.1f us a token, %.0f GFLOP/s\n", s.name, v, p.seconds*1e6, p.flops/1e9)
			c.points = append(c.points, p)
		}
		curves = append(curves, c)
	}
	title := fmt.Sprintf("%s; %s", benchmark.CPU(), computes)
	if err := writeTable(out+".csv", curves, title); err != nil {
		return err
	}
	return os.WriteFile(out+".svg", draw(curves, title), 0o666)
}

// measure takes the median step at a setting.
func measure(ctx context.Context, at setting, steps int, compute string, allLinear bool) (p point, name string, err error) {
	l := lora.Defaults()
	l.R = at.rank
	if allLinear {
		l.TargetModules = lora.ParseNames(lora.AllLinear)
	}
	sizes := benchmark.Sizes{Hidden: at.width, Intermediate: at.width * 43 / 16, Layers: at.layers, Heads: at.width / headDim, Vocab: vocab}
	rows := benchmark.Shape{Rows: max(1, at.tokens/rowTokens), Tokens: min(at.tokens, rowTokens)}
	c, err := benchmark.MakeUp(ctx, sizes, l, rows, model.Options{Threads: at.threads, Compute: compute})
	if err != nil {
		return p, "", err
	}
	defer c.Model.Close()
	c.Steps = steps
	r, err := benchmark.Run(ctx, c)
	if err != nil {
		return p, "", err
	}
	forward, backward := c.Model.Work(r.Median.Rows, r.Median.Selected)
	return point{seconds: r.Median.TokenSeconds(), flops: (forward + backward) / r.Median.Seconds()}, c.Model.BackendName(), nil
}

// writeTable writes the figures.
func writeTable(path string, curves []curve, title string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	_ = w.Write([]string{"sweep", "value", "microseconds a token", "GFLOP/s", title}) // Flush keeps its errors
	for _, c := range curves {
		for _, p := range c.points {
			_ = w.Write([]string{c.name, fmt.Sprint(p.value), fmt.Sprintf("%.2f", p.seconds*1e6), fmt.Sprintf("%.1f", p.flops/1e9), ""})
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return f.Close()
}
