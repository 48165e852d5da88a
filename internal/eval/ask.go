package eval

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/memory"
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
	for _, b := range plan {
		a.progress.Total += len(b.set.rows)
	}
	a.progress.Done, a.progress.Resumed = done, done
	a.tell()
	for _, b := range plan {
		if n := len(r.answers[b.system][b.set]); n < len(b.set.rows) {
			if err := a.rows(ctx, b, n); err != nil {
				return err
			}
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
	adapter *lora.Adapter // in the model; nil: none
	tok     *tokenizer.Tokenizer
	set     *set // that the prompts are for
	prompts *prompter
	asked   []prompt // of the set's rows
	stop    []string
	ends    []int32
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

// open makes the system of that name the open one. A model is kept for the next system, which may change the adapter.
func (a *asking) open(ctx context.Context, name string) error {
	s := a.Systems[slices.IndexFunc(a.Systems, func(s System) bool { return s.Name == name })]
	if a.model != nil && a.system == s {
		return nil
	}
	a.set = nil
	if a.adapter != nil {
		a.adapter.Unload()
		a.adapter = nil
	}
	if a.model == nil || a.system.Model != s.Model || a.system.Base != s.Base {
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
		var err error
		if a.adapter, err = lora.Load(a.model, s.Adapter, lora.Dropout(0)); err != nil {
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

// prepare opens what rows are asked with.
func (a *asking) prepare(ctx context.Context, b due) (err error) {
	if err := a.open(ctx, b.system); err != nil {
		return err
	}
	if a.set == b.set {
		return nil
	}
	if a.prompts, err = a.prompter(a.system, a.tok, b.set); err != nil {
		return err
	}
	if a.asked, err = a.prompts.all(ctx); err != nil {
		return fmt.Errorf("%s: %w", b.set.Task.Name, err)
	}
	a.set = b.set
	a.stop = a.stops(b.set)
	if s := a.prompts.stop(); s != "" && !slices.Contains(a.stop, s) {
		a.stop = append(a.stop, s)
	}
	config := a.model.Config()
	a.ends = slices.Clone(config.EOSTokenID)
	if eos, ok := a.tok.EOS(); ok && !slices.Contains(a.ends, eos) {
		a.ends = append(a.ends, eos)
	}
	return nil
}

// stopped reports whether a stop string is at the end of an answer. It looks at its last tokens only: each has a byte at
// least.
func (a *asking) stopped(answer []int32) bool {
	longest := 0
	for _, s := range a.stop {
		longest = max(longest, len(s))
	}
	tail := answer[max(0, len(answer)-longest-8):]
	return cutAt(a.tok.Decode(tail), a.stop) >= 0
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

// rowsAsked are rows that are being answered.
type rowsAsked struct {
	*asking
	due     due
	answers []Answer // of all rows of the set
	ended   []bool   // of each row
	written int
	of      []int // of each prompt: its row
}

// rows asks the rows of a set from one on, and keeps what they are answered with.
func (a *asking) rows(ctx context.Context, b due, from int) error {
	if err := a.prepare(ctx, b); err != nil {
		return fmt.Errorf("%s: %w", b.system, err)
	}
	n := len(b.set.rows)
	x := &rowsAsked{asking: a, due: b, answers: make([]Answer, n), ended: make([]bool, n), written: from}
	o := model.GenerateOptions{
		MaxNewTokens: a.newTokens(b.set), Temperature: a.Temperature, TopK: a.TopK, TopP: a.TopP, Stop: a.ends, Steady: true,
		Beams: a.Beams, LengthPenalty: a.LengthPenalty, Together: a.BatchSize, Heads: [][]int{}, Seeds: []uint64{},
		Done: x.done, OnAnswer: func(k int, answer []int32) error { return x.answered(ctx, k, answer) },
	}
	var prompts [][]int32
	for i := from; i < n; i++ {
		p := &a.asked[i]
		x.answers[i] = Answer{System: b.system, Task: b.set.Task.Name, ID: b.set.rows[i].key, Prompt: len(p.ids)}
		if x.most(i) < 1 {
			x.answers[i].Finish, x.ended[i] = tooLong, true
			continue
		}
		x.of, prompts = append(x.of, i), append(prompts, p.ids)
		o.Heads, o.Seeds = append(o.Heads, p.heads), append(o.Seeds, a.seed(b.set, i))
	}
	err := a.fit(prompts, &o)
	if err == nil {
		_, err = a.model.Generate(ctx, prompts, o)
	}
	if err == nil {
		err = x.write(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %s, rows from %s on: %w", b.system, b.set.Task.Name, b.set.rows[x.written].key, err)
	}
	return nil
}

// fit bounds the keys and values by the memory, and tells where fewer rows are answered together for it.
func (a *asking) fit(prompts [][]int32, o *model.GenerateOptions) error {
	want := min(o.Together, len(prompts))
	room, err := a.model.Fit(prompts, o)
	if err == nil && room.Together < want {
		a.progress.Note = fmt.Sprintf("%d rows are answered together, not %d: the keys and values of one take up to %s, and there is room for %s (%s)",
			room.Together, want, memory.Format(room.Each), memory.Format(room.Free), room.From)
		a.tell()
		a.progress.Note = ""
	}
	return err
}

// most is how many tokens the answer to row i may have: as many as are asked for and the model has positions for. Below 1
// the row cannot be asked.
func (x *rowsAsked) most(i int) int {
	config := x.model.Config()
	return min(x.newTokens(x.due.set), config.Positions()-len(x.asked[i].ids))
}

// done ends the answer to prompt k.
func (x *rowsAsked) done(k int, answer []int32) bool {
	return len(answer) >= x.most(x.of[k]) || len(x.stop) > 0 && x.stopped(answer)
}

// answered takes the answer to prompt k.
func (x *rowsAsked) answered(ctx context.Context, k int, ids []int32) error {
	i := x.of[k]
	x.answers[i].finish(x.tok.Decode(ids), len(ids), x.most(i), x.stop)
	x.ended[i] = true
	x.progress.Tokens += len(ids)
	return x.write(ctx)
}

// write writes answers in the order of the rows, a batch at a time, as soon as all of them have ended.
func (x *rowsAsked) write(ctx context.Context) error {
	for x.written < len(x.answers) {
		end := min(x.written+x.BatchSize, len(x.answers))
		if slices.Contains(x.ended[x.written:end], false) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.likelihoods(ctx, x.written, end); err != nil {
			return err
		}
		batch := x.answers[x.written:end]
		if err := x.journal.add(batch); err != nil {
			return err
		}
		x.keep(x.due, batch)
		x.progress.System, x.progress.Task = x.due.system, x.due.set.Task.Name
		x.progress.Done += len(batch)
		x.written = end
		x.tell()
	}
	return nil
}

// The ends of an answer.
const (
	tooLong = "too_long" // its prompt has as many tokens as the model has positions, or more: it was not asked
	ended   = "eos"
	stopped = "stop"
	cut     = "length"
)

// finish says what an answer is and why it ended.
func (x *Answer) finish(text string, tokens, most int, stop []string) {
	x.Answer, x.Tokens, x.Finish = text, tokens, ended
	if at := cutAt(text, stop); at >= 0 {
		x.Answer, x.Finish = text[:at], stopped
	} else if tokens == most {
		x.Finish = cut
	}
}

// seed is that of a row's sampling. It depends on the row alone, not on what is asked beside it.
func (a *asking) seed(x *set, i int) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %s", a.Seed, x.Task.Name, x.rows[i].key))
	return binary.LittleEndian.Uint64(sum[:])
}

// likelihoods finds how likely the gold outputs of rows are, and the options.
func (x *rowsAsked) likelihoods(ctx context.Context, from, end int) error {
	var questions []model.Question
	var of []int        // the row of each
	var lengths [][]int // of the options of each, in bytes
	for i := from; i < end; i++ {
		if x.answers[i].Finish == tooLong {
			continue
		}
		row, text := x.due.set.rows[i], x.asked[i].text
		var after []string
		q := model.Question{Prompt: x.asked[i].ids, Heads: x.asked[i].heads}
		if x.Perplexity {
			after = append(after, row.Output)
			q.Options = append(q.Options, x.prompts.follow(text, row.Output, true))
		}
		for _, option := range x.candidates(x.due.set, row) {
			after = append(after, option)
			q.Options = append(q.Options, x.prompts.follow(text, option, false))
		}
		if len(after) > 0 {
			questions, of, lengths = append(questions, q), append(of, i), append(lengths, bytesOf(after))
		}
	}
	found, err := x.model.Likelihoods(ctx, questions)
	if err != nil {
		return err
	}
	for k, all := range found {
		to := &x.answers[of[k]]
		for n, l := range all {
			one := Likelihood{l.Sum, l.Tokens, lengths[k][n]}
			if n == 0 && x.Perplexity {
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
