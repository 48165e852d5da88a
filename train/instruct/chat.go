package instruct

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/parallel"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/tokenizer/chat"
)

// ChatTemplate makes text of a conversation and says whose each part of it is. *chat.Template is one. It is used by
// several goroutines.
type ChatTemplate interface {
	RenderTurns(context.Context, chat.Input) ([]chat.Span, error)
}

// Chat is how conversations become text.
type Chat struct {
	Template ChatTemplate
	// ToolTemplate is used instead where a row has tools; nil: Template is.
	ToolTemplate ChatTemplate
	// Missing says why there is no template: what the first row that needs one is answered with.
	Missing error
	// Variables are what the template knows besides the conversation: bos_token, eos_token.
	Variables map[string]any
	// Now is the time that the template may tell, the same for all rows. Zero: that of reading.
	Now time.Time
	// SystemPrompt is the system message of conversations that have none. Empty: none.
	SystemPrompt string
	// LastTurn learns the assistant's last turn only, not all of them.
	LastTurn bool
}

// WithChat says how rows that are conversations become text.
func WithChat(c Chat) Option { return func(r *reader) { r.chat = c } }

// NoSpecialInText reads special tokens that are written in a row as plain text, wherever they stand in it: only the
// template's own become special tokens. special are the texts of all of them (tokenizer.Tokenizer.SpecialTokens).
func NoSpecialInText(special []string) Option {
	return func(r *reader) { r.plain, r.special = true, special }
}

// pending is a conversation that is not rendered yet.
type pending struct {
	*conversation
	row  int   // its index
	at   int   // how many rows stand before it, bad ones included
	err  error // why it cannot be used
	done []Span
}

// render makes text of the conversations, several at once. Those that cannot be used become bad rows.
func (r *reader) render() error {
	if len(r.pending) == 0 {
		return nil
	}
	for _, p := range r.pending {
		if r.chat.template(p.conversation) == nil {
			return fmt.Errorf("%s: the row is a conversation: %w", r.rows[p.row].Place(),
				cmp.Or(r.chat.Missing, errors.New("there is no chat template to make text of it")))
		}
	}
	if r.chat.Now.IsZero() {
		r.chat.Now = time.Now()
	}
	work := rendering{reader: r, tags: newMasker(r.special)}
	pool := parallel.New(min(runtime.GOMAXPROCS(0), len(r.pending)))
	pool.Run(len(r.pending), work)
	pool.Close()
	if err := r.ctx.Err(); err != nil {
		return err
	}
	for i := range r.pending {
		p := &r.pending[i]
		if r.rows[p.row].spans = p.done; p.err != nil {
			r.reject(p.at, &jsoncut.Error{Place: r.rows[p.row].place, Err: p.err})
		}
	}
	r.removeRejected()
	r.pending = nil
	return nil
}

// template is the template for a conversation, nil for none.
func (c *Chat) template(of *conversation) ChatTemplate {
	if of.tools != nil && c.ToolTemplate != nil {
		return c.ToolTemplate
	}
	return c.Template
}

// removeRejected removes the rows that were conversations and have no text.
func (r *reader) removeRejected() {
	bad := make(map[int]bool)
	for _, p := range r.pending {
		if p.err != nil {
			bad[p.row] = true
		}
	}
	if len(bad) == 0 {
		return
	}
	i := -1
	r.rows = slices.DeleteFunc(r.rows, func(Row) bool { i++; return bad[i] })
}

type rendering struct {
	*reader
	tags *masker
}

// Piece renders one conversation.
func (w rendering) Piece(_, i int) {
	p := &w.pending[i]
	if w.ctx.Err() != nil {
		return
	}
	p.done, p.err = w.spans(p.conversation)
	p.conversation = nil // its memory is not needed any more
}

// spans returns the text of a conversation.
func (w rendering) spans(c *conversation) ([]Span, error) {
	messages := c.withSystem(w.chat.SystemPrompt)
	turns, err := w.turns(messages, c.tools, w.chat.template(c))
	if err != nil {
		return nil, err
	}
	spans := make([]Span, len(turns))
	for i, t := range turns {
		spans[i] = Span{Text: t.Text, Learnt: t.Assistant}
	}
	if w.chat.LastTurn {
		keepLast(spans, turns)
	}
	if !slices.ContainsFunc(spans, func(s Span) bool { return s.Learnt && s.Text != "" }) {
		return nil, errors.New("the chat template writes no answer of the assistant, so that there is nothing to learn")
	}
	if err := callsWritten(spans, turns, messages); err != nil {
		return nil, err
	}
	if w.plain {
		if err := w.markPlain(spans, messages, c.tools, w.chat.template(c)); err != nil {
			return nil, err
		}
	}
	return joined(spans), nil
}

// callsWritten refuses a learnt turn whose tool calls the template does not write: the model would learn to say nothing
// where it should call.
func callsWritten(spans []Span, turns []chat.Span, messages []*strictjson.Object) error {
	written := map[int]string{}
	for i, t := range turns {
		if spans[i].Learnt && t.Message >= 0 {
			written[t.Message] += t.Text
		}
	}
	for i, m := range messages {
		text, learnt := written[i]
		calls, _ := get[[]any](m, "tool_calls")
		for k, call := range calls {
			if name := calledName(call); learnt && !strings.Contains(text, name) {
				return fmt.Errorf("the chat template does not write the call of %q (message %d, tool_calls[%d]), so that it cannot be learnt: "+
					"its text would lack the call", name, i, k)
			}
		}
	}
	return nil
}

// calledName is the name of the function that a tool call calls, up to what templates may write in another way.
func calledName(call any) string {
	o, _ := call.(*strictjson.Object)
	if o == nil {
		return ""
	}
	if f, ok := get[*strictjson.Object](o, "function"); ok {
		o = f
	}
	name, _ := get[string](o, "name")
	other := func(c rune) bool {
		return c >= utf8.RuneSelf || !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_'
	}
	if n := strings.IndexFunc(name, other); n >= 0 {
		name = name[:n]
	}
	return name
}

// joined joins spans that follow one another and are both learnt, or both not: they are encoded in one piece.
func joined(spans []Span) []Span {
	var out []Span
	for from := 0; from < len(spans); {
		to := from + 1
		for to < len(spans) && spans[to].Learnt == spans[from].Learnt {
			to++
		}
		whole := Span{Text: text(spans[from:to]), Learnt: spans[from].Learnt}
		at := 0
		for _, s := range spans[from:to] {
			whole.Plain = append(whole.Plain, moved(s.Plain, at)...)
			at += len(s.Text)
		}
		out = append(out, whole)
		from = to
	}
	return out
}

// turns renders messages.
func (w rendering) turns(messages, tools []*strictjson.Object, t ChatTemplate) ([]chat.Span, error) {
	turns, err := t.RenderTurns(w.ctx, chat.Input{
		Messages: encodeJSON(messages), Tools: encodeJSON(tools), Variables: w.chat.Variables, Now: w.chat.Now,
	})
	var refused *chat.Refused
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("the chat template refuses the conversation: %s", refused.Message)
	}
	return turns, err
}

// keepLast leaves only what belongs to the assistant's last turn: all of its message, where that is known.
func keepLast(spans []Span, turns []chat.Span) {
	last := len(turns) - 1
	for last > 0 && !turns[last].Assistant {
		last--
	}
	for i, t := range turns {
		spans[i].Learnt = t.Assistant && (i == last || t.Message >= 0 && t.Message == turns[last].Message)
	}
}

// text joins the spans.
func text(spans []Span) string {
	var b strings.Builder
	for _, s := range spans {
		b.WriteString(s.Text)
	}
	return b.String()
}
