package chat

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/tokenizer/chat/internal/jinja"
)

// Span is a piece of a rendering.
type Span struct {
	Text string
	// Message is the index of the message whose turn wrote the text, -1 where none did.
	Message int
	// Assistant tells that the text is what the model must learn to write: the assistant's answer and the end of its
	// turn, without the turn's header.
	Assistant bool
}

// RenderTurns renders a conversation and cuts it into spans; their texts together are what Render returns with
// AddGenerationPrompt false.
//
// Where the turns are is known from the run of the template itself, not found in the text: what is written while a loop
// over the messages is at message i belongs to message i. Nothing that a message says can be taken for another turn.
// Templates that run over the messages otherwise are rendered up to each message, and a turn is what the message adds.
//
// In a turn of the assistant, what comes after the generation prompt is learnt. Where the turn does not begin with the
// generation prompt, its header is what the template writes before the answer when that is another one; white space
// belongs to the answer if there is no generation prompt at all, as with Llama 2. Templates with generation blocks say
// themselves what is learnt. The error names the assistant's message that cannot be located so.
func (t *Template) RenderTurns(ctx context.Context, in Input) ([]Span, error) {
	c, err := t.conversation(in)
	if err != nil {
		return nil, err
	}
	whole, err := c.render(ctx, c.messages, false)
	if err != nil {
		return nil, err
	}
	f := &finder{ctx: ctx, conversation: c, whole: whole, turns: turns(whole)}
	var learnt []learnt
	if t.t.Generation() && !whole.Captured {
		learnt = f.generated()
	} else if learnt, err = f.all(); err != nil {
		return nil, err
	}
	return f.spans(learnt), nil
}

// learnt is a range of the rendering that the model must learn.
type learnt struct{ start, end, message int }

// turn is the range of the rendering that belongs to a message.
type turn struct{ start, end int }

// turns returns the turns that the run of the template tells. A message whose text is in several places has none; white
// space beside a text does not count.
func turns(out jinja.Output) map[int]turn {
	all := map[int]turn{}
	several := map[int]bool{-1: true} // what no message wrote
	blank := func(t turn) bool { return strings.TrimSpace(out.Text[t.start:t.end]) == "" }
	for i, p := range out.Parts {
		t := turn{p.Start, partEnd(out, i)}
		other, ok := all[p.Message]
		switch {
		case !ok || blank(other):
			all[p.Message] = t
		case !blank(t):
			several[p.Message] = true
		}
	}
	for m := range several {
		delete(all, m)
	}
	return all
}

// partEnd is where a part ends.
func partEnd(out jinja.Output, i int) int {
	if i+1 < len(out.Parts) {
		return out.Parts[i+1].Start
	}
	return len(out.Text)
}

// finder finds the answers in a rendering.
type finder struct {
	*conversation
	ctx    context.Context
	whole  jinja.Output
	turns  map[int]turn
	prompt *string // the generation prompt at the end of the conversation
}

// generated returns what the generation blocks wrote.
func (f *finder) generated() (all []learnt) {
	for _, g := range f.whole.Generated {
		if g[0] == g[1] || len(all) > 0 && g[0] < all[len(all)-1].end {
			continue
		}
		all = append(all, learnt{g[0], g[1], f.messageAt(g[0])})
	}
	return all
}

// messageAt is the message whose turn a byte lies in.
func (f *finder) messageAt(at int) int {
	i, ok := slices.BinarySearchFunc(f.whole.Parts, at, func(p jinja.Part, at int) int { return p.Start - at })
	if !ok {
		i--
	}
	return f.whole.Parts[i].Message
}

// all locates every answer of the assistant.
func (f *finder) all() (all []learnt, err error) {
	for i, m := range f.messages {
		if !isAssistant(m) {
			continue
		}
		t, ok, err := f.turn(i)
		if err != nil {
			return nil, err
		}
		if !ok && isBlank(m) {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("chat: message %d: the template does not tell which text belongs to it", i)
		}
		start, err := f.answer(i, t)
		if err != nil {
			return nil, err
		}
		if start < t.end {
			all = append(all, learnt{start, t.end, i})
		}
	}
	return all, nil
}

// turn returns the turn of message i: from the run of the template, or, if that tells nothing of any message, what the
// message adds to the rendering of those before it.
func (f *finder) turn(i int) (turn, bool, error) {
	t, ok := f.turns[i]
	if ok || slices.ContainsFunc(f.whole.Parts, func(p jinja.Part) bool { return p.Message >= 0 }) {
		return t, ok, nil
	}
	before, ok, err := f.try(f.messages[:i], false)
	if err != nil || !ok || !strings.HasPrefix(f.whole.Text, before.Text) {
		return turn{}, false, err
	}
	with, ok, err := f.try(f.messages[:i+1], false)
	if err != nil || !ok || !strings.HasPrefix(f.whole.Text, with.Text) || len(with.Text) <= len(before.Text) {
		return turn{}, false, err
	}
	t = turn{len(before.Text), len(with.Text)}
	says := strings.TrimSpace(text(f.messages[i], "content"))
	return t, strings.Contains(f.whole.Text[t.start:t.end], says), nil
}

// try renders other messages than the whole conversation, which the template may refuse; only the end of ctx is an
// error.
func (f *finder) try(messages []*jinja.Dict, prompt bool) (jinja.Output, bool, error) {
	out, err := f.render(f.ctx, messages, prompt)
	return out, err == nil, f.ctx.Err()
}

// answer returns where in its turn the assistant's answer begins.
func (f *finder) answer(i int, t turn) (int, error) {
	text := f.whole.Text[t.start:t.end]
	last, err := f.lastPrompt()
	if err != nil {
		return 0, err
	}
	if last != "" && strings.HasPrefix(text, last) {
		return t.start + len(last), nil
	}
	prompt, known, err := f.promptAt(i)
	if err != nil {
		return 0, err
	}
	if prompt != "" && strings.HasPrefix(text, prompt) {
		return t.start + len(prompt), nil
	}
	for _, n := range []int{len(f.messages), i + 1} {
		header, ok, err := f.header(i, t, n)
		if err != nil {
			return 0, err
		}
		if ok && known && prompt == "" && strings.TrimSpace(header) == "" {
			return t.start, nil
		}
		if ok && strings.HasPrefix(text, header) {
			return t.start + len(header), nil
		}
	}
	return 0, fmt.Errorf("chat: message %d: the template does not tell where in its text the assistant's answer begins", i)
}

// lastPrompt is the generation prompt at the end of the conversation, "" where it is not an addition.
func (f *finder) lastPrompt() (string, error) {
	if f.prompt != nil {
		return *f.prompt, nil
	}
	out, ok, err := f.try(f.messages, true)
	if err != nil {
		return "", err
	}
	prompt := ""
	if rest, is := strings.CutPrefix(out.Text, f.whole.Text); ok && is {
		prompt = rest
	}
	f.prompt = &prompt
	return prompt, nil
}

// promptAt is the generation prompt before message i.
func (f *finder) promptAt(i int) (prompt string, known bool, err error) {
	without, ok, err := f.try(f.messages[:i], false)
	if err != nil || !ok {
		return "", false, err
	}
	with, ok, err := f.try(f.messages[:i], true)
	if err != nil || !ok {
		return "", false, err
	}
	prompt, known = strings.CutPrefix(with.Text, without.Text)
	return prompt, known, nil
}

// header is what the template writes in message i's turn before the answer, when the answer is another: a text that
// occurs nowhere else. It is rendered with the first n messages.
func (f *finder) header(i int, t turn, n int) (string, bool, error) {
	mark := f.mark()
	other := jinja.NewDict()
	other.Set("role", "assistant")
	other.Set("content", mark)
	content, _ := f.messages[i].Get("content")
	if _, parts := content.(*jinja.List); parts {
		part := jinja.NewDict()
		part.Set("type", "text")
		part.Set("text", mark)
		other.Set("content", jinja.NewList([]any{part}))
	}
	messages := slices.Clone(f.messages[:n])
	messages[i] = other
	out, ok, err := f.try(messages, false)
	if err != nil || !ok {
		return "", false, err
	}
	own, ok := turns(out)[i]
	if !ok && !strings.HasPrefix(out.Text, f.whole.Text[:t.start]) {
		return "", false, nil
	}
	if !ok {
		own = turn{t.start, len(out.Text)}
	}
	header, _, found := strings.Cut(out.Text[own.start:own.end], mark)
	return header, found, nil
}

// mark is a text that neither the template nor the conversation has.
func (f *finder) mark() string {
	for n := 0; ; n++ {
		mark := fmt.Sprintf("answer%dx", n)
		if !strings.Contains(f.t.source, mark) && !strings.Contains(f.whole.Text, mark) {
			return mark
		}
	}
}

// spans cuts the rendering at the turns and at what is learnt.
func (f *finder) spans(all []learnt) (spans []Span) {
	add := func(start, end, message int, assistant bool) {
		if start < end {
			spans = append(spans, Span{f.whole.Text[start:end], message, assistant})
		}
	}
	slices.SortFunc(all, func(a, b learnt) int { return a.start - b.start })
	at, part := 0, 0
	upTo := func(to int) { // what is not learnt
		for ; at < to; part++ {
			end := min(partEnd(f.whole, part), to)
			add(at, end, f.whole.Parts[part].Message, false)
			if at = max(at, end); at == to && end < partEnd(f.whole, part) {
				return
			}
		}
	}
	for _, l := range all {
		upTo(l.start)
		add(l.start, l.end, l.message, true)
		at = l.end
	}
	upTo(len(f.whole.Text))
	return spans
}
