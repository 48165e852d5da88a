package eval

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
)

// ask has the systems answer what is not answered yet.
func (r *run) ask(ctx context.Context) (err error) {
	for _, s := range r.Systems {
		r.systems = append(r.systems, s.Name)
	}
	if r.settings, err = r.resolve(); err != nil {
		return err
	}
	if err := r.tryAll(ctx); err != nil {
		return err
	}
	if err := r.claim(); err != nil {
		return err
	}
	plan := r.plan()
	j, done, err := r.resume(plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.f.Close()) }()
	a := &asking{run: r, journal: j}
	defer func() { err = errors.Join(err, a.close()) }()
	for i, b := range plan {
		a.progress.Total += b.n
		if i < done {
			a.progress.Done += b.n
		}
	}
	a.progress.Resumed = a.progress.Done
	a.tell()
	for _, b := range plan[done:] {
		if err := a.batch(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// tryAll finds what would end a run late: a system whose adapter does not fit, or that cannot be asked.
func (r *run) tryAll(ctx context.Context) error {
	var errs []error
	for _, s := range r.Systems {
		if err := r.try(ctx, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *run) try(ctx context.Context, s System) error {
	tok, err := tokenizer.Load(s.Model)
	if err != nil {
		return err
	}
	for _, x := range r.sets {
		p, err := r.prompter(s, tok, x)
		if err != nil {
			return err
		}
		if _, err := p.text(ctx, x.rows[0]); err != nil {
			return fmt.Errorf("row %s of %s: %w", x.rows[0].key, x.Task.Name, err)
		}
	}
	if s.Adapter == "" {
		return nil
	}
	return local.Fits(s.Model, s.Adapter)
}

// asking is a run at work.
type asking struct {
	*run
	journal  *journal
	progress Progress

	system  System // that is open
	model   *model.Model
	tok     *tokenizer.Tokenizer
	set     *set // that the prompts are for
	prompts *prompter
	asked   []prompt // of the set's rows
	stop    []string
	ends    []int32
	options model.GenerateOptions
}

func (a *asking) tell() {
	if a.Progress != nil {
		a.Progress(a.progress)
	}
}

func (a *asking) close() error {
	if a.model == nil {
		return nil
	}
	err := a.model.Close()
	a.model = nil
	return err
}

// open makes the system of that name the open one. A model without an adapter is kept for the next system, which may add
// its own.
func (a *asking) open(ctx context.Context, name string) error {
	s := a.Systems[slices.IndexFunc(a.Systems, func(s System) bool { return s.Name == name })]
	if a.model != nil && a.system == s {
		return nil
	}
	a.set = nil
	keep := a.model != nil && a.system.Adapter == "" && a.system.Model == s.Model && a.system.Base == s.Base
	if !keep {
		if err := a.close(); err != nil {
			return err
		}
		o := a.run.Model
		o.Base = s.Base
		var err error
		if a.model, err = model.OpenContext(ctx, s.Model, o); err != nil {
			return err
		}
		if a.tok, err = tokenizer.Load(s.Model); err != nil {
			return err
		}
	}
	if s.Adapter != "" {
		if _, err := lora.Load(a.model, s.Adapter, lora.Dropout(0)); err != nil {
			return err
		}
	}
	a.system = s
	if a.backends[name] == "" {
		a.backends[name] = a.model.BackendName()
		return a.writeState()
	}
	return nil
}

// prepare opens what a batch is asked with.
func (a *asking) prepare(ctx context.Context, b due) (err error) {
	if err := a.open(ctx, b.system); err != nil {
		return fmt.Errorf("%s: %w", b.system, err)
	}
	if a.set == b.set {
		return nil
	}
	if a.prompts, err = a.prompter(a.system, a.tok, b.set); err != nil {
		return err
	}
	if a.asked, err = a.prompts.all(ctx); err != nil {
		return fmt.Errorf("%s, %s: %w", b.system, b.set.Task.Name, err)
	}
	a.set = b.set
	a.stop = a.stops(b.set)
	if s := a.prompts.stop(); s != "" && !slices.Contains(a.stop, s) {
		a.stop = append(a.stop, s)
	}
	a.ends = slices.Clone(a.model.Config().EOSTokenID)
	if eos, ok := a.tok.EOS(); ok && !slices.Contains(a.ends, eos) {
		a.ends = append(a.ends, eos)
	}
	a.options = model.GenerateOptions{
		MaxNewTokens: a.newTokens(b.set), Temperature: a.Temperature, TopK: a.TopK, TopP: a.TopP, Stop: a.ends,
		Beams: a.Beams, LengthPenalty: a.LengthPenalty,
	}
	if len(a.stop) > 0 {
		a.options.Done = a.stopped()
	}
	return nil
}

// stopped finds stop strings at the end of an answer. It looks at its last tokens only: each has a byte at least.
func (a *asking) stopped() func(int, []int32) bool {
	longest := 0
	for _, s := range a.stop {
		longest = max(longest, len(s))
	}
	return func(_ int, answer []int32) bool {
		tail := answer[max(0, len(answer)-longest-8):]
		return cutAt(a.tok.Decode(tail), a.stop) >= 0
	}
}

// cutAt is where the first of the stop strings begins in a text, or -1.
func cutAt(text string, stop []string) int {
	first := -1
	for _, s := range stop {
		if at := strings.Index(text, s); at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	return first
}

// batch asks the rows of a batch and keeps what they are answered with.
func (a *asking) batch(ctx context.Context, b due) error {
	if err := a.prepare(ctx, b); err != nil {
		return err
	}
	answers := make([]Answer, b.n)
	groups := map[int][]int{}
	for i := range answers {
		p := &a.asked[b.from+i]
		answers[i] = Answer{System: b.system, Task: b.set.Task.Name, ID: b.set.rows[b.from+i].key, Prompt: len(p.ids)}
		groups[p.group] = append(groups[p.group], i)
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		if err := a.answer(ctx, b, group, groups[group], answers); err != nil {
			return fmt.Errorf("%s: rows from %s of %s: %w", b.system, answers[0].ID, b.set.Task.Name, err)
		}
	}
	if err := a.journal.add(answers); err != nil {
		return err
	}
	a.keep(b, answers)
	a.progress.System, a.progress.Task = b.system, b.set.Task.Name
	a.progress.Done += b.n
	a.tell()
	return nil
}

// answer asks the rows of a batch that begin alike.
func (a *asking) answer(ctx context.Context, b due, group int, members []int, answers []Answer) error {
	o := a.options
	rest := make([][]int32, len(members))
	for k, i := range members {
		p := &a.asked[b.from+i]
		o.Head, rest[k] = p.ids[:p.head], p.ids[p.head:]
	}
	o.Seed = a.seed(b, group)
	found, err := a.model.Generate(ctx, rest, o)
	if err != nil {
		return err
	}
	for k, i := range members {
		answers[i].finish(a.tok.Decode(found[k]), len(found[k]), o.MaxNewTokens, a.stop)
		a.progress.Tokens += len(found[k])
	}
	return a.likelihoods(ctx, b, o.Head, rest, members, answers)
}

// finish says what an answer is and why it ended.
func (x *Answer) finish(text string, tokens, most int, stop []string) {
	x.Answer, x.Tokens, x.Finish = text, tokens, "eos"
	if at := cutAt(text, stop); at >= 0 {
		x.Answer, x.Finish = text[:at], "stop"
	} else if tokens == most {
		x.Finish = "length"
	}
}

// seed is that of the sampling of rows that are asked together: what is drawn depends on their places among them too.
func (a *asking) seed(b due, group int) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %d %d", a.Seed, b.set.Task.Name, b.from, group))
	return binary.LittleEndian.Uint64(sum[:])
}

// likelihoods finds how likely the gold outputs are, and the options. rest are the prompts behind the head.
func (a *asking) likelihoods(ctx context.Context, b due, head []int32, rest [][]int32, members []int, answers []Answer) error {
	var questions []model.Question
	var lengths [][]int // of the options of each, in bytes
	for k, i := range members {
		row, text := b.set.rows[b.from+i], a.asked[b.from+i].text
		var after []string
		q := model.Question{Prompt: rest[k]}
		if a.Perplexity {
			after = append(after, row.Output)
			q.Options = append(q.Options, a.prompts.follow(text, row.Output, true))
		}
		for _, option := range a.candidates(b.set, row) {
			after = append(after, option)
			q.Options = append(q.Options, a.prompts.follow(text, option, false))
		}
		questions, lengths = append(questions, q), append(lengths, bytesOf(after))
	}
	if len(lengths[0]) == 0 {
		return nil
	}
	found, err := a.model.Likelihoods(ctx, head, questions)
	if err != nil {
		return err
	}
	for k, all := range found {
		to := &answers[members[k]]
		for n, l := range all {
			one := Likelihood{l.Sum, l.Tokens, lengths[k][n]}
			if n == 0 && a.Perplexity {
				to.Gold = &one
				continue
			}
			to.Options = append(to.Options, one)
		}
	}
	return nil
}

func bytesOf(texts []string) (lengths []int) {
	for _, t := range texts {
		lengths = append(lengths, len(t))
	}
	return lengths
}

// candidates are the texts that a row's answer may be, where their likelihood is wanted.
func (a *asking) candidates(x *set, r row) (texts []string) {
	if !a.Likelihood {
		return nil
	}
	switch x.Task.Parser {
	case "choice":
		for i, option := range r.options {
			texts = append(texts, optionLine(i, option))
		}
	case "label":
		texts = x.Task.Labels
	}
	return texts
}
