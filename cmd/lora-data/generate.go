package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/bioinstruct"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/visible"
)

// generate is the command of that name.
type generate struct {
	Out       string `placeholder:"FILE" help:"Where the rows go: .json, .jsonl or .parquet."`
	Overwrite bool   `help:"Replace the output, and the rejections, where they exist. The journal is never replaced."`
	Journal   string `placeholder:"FILE" help:"All requests and answers. Without it: the output's name and .journal."`
	Replay    bool   `help:"Make the rows of the journal without asking anybody."`
	DryRun    bool   `name:"dry-run" help:"Show the first request, and stop."`
	Target    *int   `placeholder:"N" help:"Rows to make. Without it: 1000, and with --replay as many as the run was to make."`
	Seeds     string `placeholder:"FILE" help:"Seed tasks in Self-Instruct's format. Without it: 80 that come with the program."`
	Prompt    string `placeholder:"FILE" help:"A prompt of your own, with {tasks} and {count}; {first} and {examples} besides."`
	Seed      uint64 `placeholder:"N" help:"Chooses the seed tasks that each request shows."`
	Each      int    `name:"per-request" default:"10" placeholder:"N" help:"Tasks to ask for at a time (${default})."`
	Requests  int    `name:"max-requests" placeholder:"N" help:"End after so many requests, even with fewer rows."`
	Barren    int    `name:"max-barren" default:"50" placeholder:"N" help:"Fail when so many requests in a row gave nothing that was accepted (${default}); 0: never."`
	Rejected  string `placeholder:"FILE" help:"Write what was not accepted, and why, as JSON Lines."`

	Model string `group:"Endpoint" placeholder:"NAME" help:"Model to ask, as the endpoint calls it."`
	asking
}

// The defaults of flags, as their tags have them.
const (
	defaultEach   = 10
	defaultBarren = 50
)

// Help is the longer help.
func (generate) Help() string {
	return `Makes instruction rows in the way of BioInstruct: each request shows a model 3 of 80 seed tasks, at random [F], and asks for more.
What comes back is taken apart, filtered (at most 3 words or more than 150, words such as "image" or "draw", no output, cut off) and
compared: an instruction with a ROUGE-L above 0.7 to a seed or to an accepted one is left out [I]. The seed tasks and the prompt are
this project's own; the paper's are not known [N].

[F] read in the paper; [I] inferred: on the 2,501 rows that were looked at the filter rejects nothing; [N] not found.

Every request and answer is in the journal before it is used. A run that ended in whatever way goes on with the same command, and
--replay makes the same rows of the journal again, byte for byte; rows come in the order of the requests. A higher --target goes on,
too. The key is taken from the environment and written nowhere.

Examples:

  lora-data generate --model gpt-4o --target 25005 --concurrency 8 --tokens-per-minute 200000 --out made.jsonl
  lora-data generate --model llama --base-url http://localhost:8000/v1 --temperature 0.8 --out made.jsonl
  lora-data generate --model gpt-4o --out made.jsonl --dry-run
  lora-data generate --replay --journal made.jsonl.journal --out again.jsonl`
}

// Run carries the command out.
func (c *generate) Run(ctx context.Context, s *cli.Streams) error {
	if err := c.check(); err != nil {
		return err
	}
	recipe, err := c.recipe()
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.show(s, recipe)
	}
	var rejected []bioinstruct.Rejection
	o := bioinstruct.Options{Ask: c.options(), Workers: runtime.GOMAXPROCS(0)}
	if c.Rejected != "" {
		o.Rejected = func(r bioinstruct.Rejection) { rejected = append(rejected, r) }
	}
	got, err := c.make(ctx, s, recipe, o)
	if err != nil {
		return err
	}
	if len(got.Rows) == 0 {
		c.report(s, got)
		return fmt.Errorf("no rows were made")
	}
	if _, err := rows.Write(c.Out, sequence(ctx, got.Rows)); err != nil {
		return err
	}
	if err := c.writeRejected(rejected); err != nil {
		return err
	}
	c.report(s, got)
	return nil
}

// asks are the flags that are given and are for asking a model.
func (c *generate) asks() []string {
	return append(flagsGiven([]flagGiven{
		{"model", c.Model != ""},
		{"seeds", c.Seeds != ""},
		{"prompt", c.Prompt != ""},
		{"seed", c.Seed != 0},
		{"per-request", c.Each != defaultEach},
		{"max-requests", c.Requests != 0},
		{"max-barren", c.Barren != defaultBarren},
	}), c.given()...)
}

func (c *generate) check() error {
	if c.Replay && c.DryRun {
		return cli.Usagef("--replay asks nothing that --dry-run could show")
	}
	if given := c.asks(); c.Replay && len(given) > 0 {
		return cli.Usagef("--replay takes everything from the journal and asks nobody: it has no use for %s", strings.Join(given, ", "))
	}
	if c.Target != nil && *c.Target < 1 {
		return cli.Usagef("--target %d: want at least 1", *c.Target)
	}
	if c.DryRun {
		return nil
	}
	if c.Out == "" {
		return cli.Usagef("--out is missing: where the rows go")
	}
	for _, path := range []string{c.Out, c.Rejected} {
		if _, err := os.Lstat(path); err == nil && path != "" && !c.Overwrite {
			return cli.Usagef("%s exists (--overwrite replaces it)", path)
		}
	}
	if c.Journal == "" {
		c.Journal = c.Out + ".journal"
	}
	if c.Journal == c.Out || c.Journal == c.Rejected || c.Out == c.Rejected {
		return cli.Usagef("--out, --journal and --rejected must be different files")
	}
	return writable(c.Out)
}

// recipe is what the flags ask for; with --replay the journal's, which is not read here.
func (c *generate) recipe() (r bioinstruct.Recipe, err error) {
	if c.Replay {
		return r, nil
	}
	r = bioinstruct.Recipe{Sampling: c.sampling(c.Model), Seed: c.Seed, PerRequest: c.Each, Prompt: bioinstruct.DefaultPrompt}
	if c.Seeds == "" {
		r.Seeds, err = bioinstruct.Seeds()
	} else {
		r.Seeds, err = bioinstruct.ReadSeeds(c.Seeds)
	}
	if err != nil {
		return r, err
	}
	if c.Prompt != "" {
		const longest = 1 << 20
		text, err := regular.ReadFile(c.Prompt, longest)
		if err != nil {
			return r, err
		}
		r.Prompt = string(text)
	}
	if c.Model == "" {
		return r, cli.Usagef("--model is missing: which model to ask")
	}
	if err := r.Check(); err != nil {
		return r, cli.UsageError{Err: err}
	}
	return r, nil
}

func (c *generate) make(ctx context.Context, s *cli.Streams, r bioinstruct.Recipe, o bioinstruct.Options) (*bioinstruct.Result, error) {
	target := 0 // as many as the run was to make
	if c.Target != nil {
		target = *c.Target
	}
	if c.Replay {
		return bioinstruct.Replay(ctx, c.Journal, target, o)
	}
	m, err := c.open(c.Model)
	if err != nil {
		return nil, err
	}
	l := bioinstruct.Limits{Target: cmp.Or(target, 1000), MaxRequests: c.Requests, MaxBarren: c.Barren}
	b := newBar(s.Err, l.Target, "rows")
	o.Progress = func(r *bioinstruct.Result) { b.set(len(r.Rows)) }
	got, err := bioinstruct.Generate(ctx, c.Journal, m, r, l, o)
	b.end()
	return got, failed(s, c.Journal, err)
}

// show prints the first request.
func (c *generate) show(s *cli.Streams, r bioinstruct.Recipe) error {
	text := r.Request(0).Messages[0].Content
	fmt.Fprintf(s.Out, "%s\n", visible.Text(text))
	fmt.Fprintf(s.Err, "about %d tokens a prompt; %d seed tasks\n", ask.Tokens(text), len(r.Seeds))
	return nil
}

func (c *generate) report(s *cli.Streams, got *bioinstruct.Result) {
	fmt.Fprintf(s.Out, "%d rows of %d answers in %s\n", len(got.Rows), got.Requests, c.Out)
	for _, why := range bioinstruct.Reasons {
		if n := got.Rejected[why]; n > 0 {
			fmt.Fprintf(s.Out, "%7d rejected: %s\n", n, why)
		}
	}
	c.tell(s, got.Totals)
	if !got.Enough {
		fmt.Fprintln(s.Err, "lora-data: warning: these are fewer rows than were to be made")
	}
}

func (c *generate) writeRejected(all []bioinstruct.Rejection) error {
	if c.Rejected == "" {
		return nil
	}
	return atomicfile.Write(c.Rejected, func(w io.Writer) error {
		out := bufio.NewWriter(w)
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		for _, r := range all {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return out.Flush()
	})
}
