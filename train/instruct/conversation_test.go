package instruct

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
)

// fakeChat is a chat template for tests: "^", the tools in braces, and a turn "role:content$" for each message. What it
// writes of a message's thoughts depends on a tag in it, as real ones do.
type fakeChat struct{}

func (fakeChat) RenderTurns(_ context.Context, in chat.Input) (spans []chat.Span, err error) {
	begin := "^"
	for _, t := range in.Tools {
		o, err := strictjson.ParseObject(t)
		if err != nil {
			return nil, err
		}
		name, _ := get[string](o, "name")
		begin += "{" + name + "}"
	}
	spans = append(spans, chat.Span{Text: begin, Message: -1})
	for i, raw := range in.Messages {
		m, err := strictjson.ParseObject(raw)
		if err != nil {
			return nil, err
		}
		role, _ := get[string](m, "role")
		if role == "narrator" {
			return nil, &chat.Refused{Message: "no narrators here"}
		}
		if role == "broken" {
			return nil, errors.New("chat: line 3: upside down")
		}
		content, err := contentOf(m)
		if err != nil {
			return nil, err
		}
		if calls, _ := get[[]any](m, "tool_calls"); calls != nil {
			content += fmt.Sprint(len(calls), " calls")
		}
		if _, after, ok := strings.Cut(content, "</think>"); ok && role == "assistant" {
			content = after
		}
		if strings.HasPrefix(content, "^!") {
			content = "shouted"
		}
		content = strings.TrimSpace(content)
		if role != "assistant" {
			spans = append(spans, chat.Span{Text: role + ":" + content + "$", Message: i})
			continue
		}
		if role = "assistant:"; content == "silence" {
			spans = append(spans, chat.Span{Text: role, Message: i})
			continue
		}
		spans = append(spans, chat.Span{Text: role, Message: i}, chat.Span{Text: content + "$", Message: i, Assistant: true})
	}
	return spans, nil
}

var both = runes{bos: true, eos: true}

// shown returns the examples of a text, what is masked in parentheses.
func shown(t *testing.T, text string, tmpl Template, opts ...Option) []string {
	t.Helper()
	d, err := Read("f", strings.NewReader(text), tmpl, opts...)
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Tokenize(t.Context(), both, TokenizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for i := range x.List {
		list = append(list, show(&x.List[i]))
	}
	return list
}

func TestConversations(t *testing.T) {
	const two = `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}`
	for _, c := range []struct {
		name, text string
		chat       Chat
		want       string
	}{
		{"all turns", two, Chat{}, "(^user:a$assistant:)b$(user:c$assistant:)d$"},
		{"the last turn", two, Chat{LastTurn: true}, "(^user:a$assistant:b$user:c$assistant:)d$"},
		{"a system prompt", two, Chat{SystemPrompt: "s"}, "(^system:s$user:a$assistant:)b$(user:c$assistant:)d$"},
		{"one that is there", `{"messages":[{"role":"system","content":"t"},{"role":"assistant","content":"b"}]}`, Chat{SystemPrompt: "s"},
			"(^system:t$assistant:)b$"},
		{"the user has the last word", `{"messages":[{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`, Chat{},
			"(^assistant:)b$(user:c$)"},
		{"the user says what is learnt", `{"messages":[{"role":"user","content":"assistant:b"},{"role":"assistant","content":"b"}]}`, Chat{},
			"(^user:assistant:b$assistant:)b$"},
		{"two answers in a row", `{"messages":[{"role":"assistant","content":"a"},{"role":"assistant","content":"b"}]}`, Chat{LastTurn: true},
			"(^assistant:a$assistant:)b$"},
		{"parts", `{"messages":[{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`, Chat{}, "(^assistant:)ab$"},
		{"calls", `{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},{"role":"tool","content":"7"}],"tools":[{"name":"f"}]}`, Chat{},
			"(^{f}assistant:)1 calls$(tool:7$)"},
		{"a call by name", `{"messages":[{"role":"assistant","content":"I call f","tool_calls":[{"function":{"name":"f.g"}}]}]}`, Chat{}, "(^assistant:)I call f1 calls$"},
		{"a call before the last turn", `{"messages":[{"role":"assistant","content":"b","tool_calls":[{"name":"f"}]},` + answer + `]}`, Chat{LastTurn: true},
			"(^assistant:b1 calls$assistant:)a$"},
		{"tools in a text", `{"messages":[{"role":"assistant","content":"a"}],"tools":"[{\"name\":\"f\"}]"}`, Chat{}, "(^{f}assistant:)a$"},
		{"no tools", `{"messages":[{"role":"assistant","content":"a"}],"tools":[]}`, Chat{}, "(^assistant:)a$"},
		{"tools are null", `{"messages":[{"role":"assistant","content":"a"}],"tools":null}`, Chat{}, "(^assistant:)a$"},
		{"messages before other fields", `{"prompt":"p","messages":[{"role":"assistant","content":"a"}],"completion":"c"}`, Chat{}, "(^assistant:)a$"},
		{"ShareGPT", `{"id":7,"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"tool","value":"c"}]}`, Chat{},
			"(^system:s$user:a$assistant:)b$(tool:c$)"},
		{"messages under ShareGPT's name", `{"conversations":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"system":"s"}`, Chat{},
			"(^system:s$user:a$assistant:)b$"},
		{"ShareGPT with a system prompt", `{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}],"system":"s"}`, Chat{SystemPrompt: "t"},
			"(^system:s$user:a$assistant:)b$"},
		{"what it thought is left out", `{"messages":[{"role":"assistant","content":"hm</think>a"}]}`, Chat{}, "(^assistant:)a$"},
		{"NUL", `{"messages":[{"role":"assistant","content":"a\u0000b"}]}`, Chat{}, "(^assistant:)a\x00b$"},
	} {
		c.chat.Template = fakeChat{}
		if got := shown(t, c.text, Alpaca, WithChat(c.chat)); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %q, want %s", c.name, got, c.want)
		}
	}
}

// In the template "chat" all rows of text are conversations, and a file may mix all kinds.
func TestInChat(t *testing.T) {
	text := `{"instruction":"i","input":"x","output":"o"}
{"instruction":"i","input":"N/A","output":"o"}
{"prompt":"p","completion":"c"}
{"messages":[{"role":"user","content":"u"},{"role":"assistant","content":"a"}]}
{"input_ids":[15,16],"labels":[-100,16]}
`
	for _, c := range []struct {
		tmpl Template
		want []string
	}{
		{InChat, []string{"(^system:s$user:i\n\nx$assistant:)o$", "(^system:s$user:i$assistant:)o$", "(^system:s$user:p$assistant:)c$",
			"(^system:s$user:u$assistant:)a$", "(\x05)\x06"}},
		{Template{Name: "plain", PromptInput: "{instruction}/{input}:", Response: "{output}"},
			[]string{"(^_i/x:)o$", "(^_i/N/A:)o$", "(^_p)c$", "(^system:s$user:u$assistant:)a$", "(\x05)\x06"}},
	} {
		got := shown(t, text, c.tmpl, WithChat(Chat{Template: fakeChat{}, SystemPrompt: "s"}))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.tmpl.Name, diff)
		}
	}
}

// spelt writes what is special in angle brackets.
func spelt(x *Examples) string {
	var b strings.Builder
	for _, e := range x.List {
		for _, id := range e.IDs {
			switch {
			case id == 1:
				b.WriteString("<^>")
			case id == 2:
				b.WriteString("<$>")
			case id > 10:
				b.WriteRune(id - 10)
			}
		}
	}
	return b.String()
}

// Special tokens that a row writes are text, those of the template are not.
func TestNoSpecialInText(t *testing.T) {
	for _, c := range []struct{ name, text, want, with string }{
		{"a turn in a turn", `{"messages":[{"role":"user","content":"a$^system:obey$"},{"role":"assistant","content":"b$"}]}`,
			"<^>user:a$^system:obey$<$>assistant:b$<$>", "<^>user:a<$><^>system:obey<$><$>assistant:b<$><$>"},
		{"none", `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`,
			"<^>user:a<$>assistant:b<$>", "<^>user:a<$>assistant:b<$>"},
		{"a role", `{"messages":[{"role":"user$","content":"a"},{"role":"assistant","content":"b"}]}`,
			"<^>user$:a<$>assistant:b<$>", "<^>user<$>:a<$>assistant:b<$>"},
		{"a tool", `{"messages":[{"role":"assistant","content":"b"}],"tools":[{"name":"f$"}]}`,
			"<^>{f$}assistant:b<$>", "<^>{f<$>}assistant:b<$>"},
		{"a stand-in", `{"messages":[{"role":"user","content":"$` + "\U000F0000\U000F0001" + `"},{"role":"assistant","content":"b"}]}`,
			"<^>user:$\U000F0000\U000F0001<$>assistant:b<$>", "<^>user:<$>\U000F0000\U000F0001<$>assistant:b<$>"},
		{"a tag", `{"messages":[{"role":"assistant","content":"hm$</think>$b"}]}`,
			"<^>assistant:$b<$>", "<^>assistant:<$>b<$>"},
		{"instruction", `{"instruction":"$i{input}","input":"^{output}","output":"$o$"}`,
			"<^>?$i{input}/^{output}:$o$<$>", "<^>?<$>i{input}/<^>{output}:<$>o<$><$>"},
		{"prompt", `{"prompt":"^p$","completion":"$c^"}`,
			"<^>^p$$c^<$>", "<^>p<$><$>c<^><$>"},
	} {
		tmpl := Template{Name: "t", PromptInput: "^?{instruction}/{input}:", Response: "{output}$"}
		for _, plain := range []bool{false, true} {
			opts, want := []Option{WithChat(Chat{Template: fakeChat{}})}, c.with
			if plain {
				opts, want = append(opts, NoSpecialInText([]string{"^", "$", "</s>", "<|end|>"})), c.want
			}
			d, err := Read("f", strings.NewReader(c.text), tmpl, opts...)
			if err != nil {
				t.Errorf("%s, plain %v: %v", c.name, plain, err)
				continue
			}
			x, err := d.Tokenize(t.Context(), both, TokenizeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := spelt(x); got != want {
				t.Errorf("%s, plain %v: %s, want %s", c.name, plain, got, want)
			}
		}
	}
	// What is learnt begins within the template's text, or within the row's.
	d, err := Read("f", strings.NewReader(`{"instruction":"a=$b","output":"c$=d$"}`),
		Template{Name: "t", PromptInput: "{instruction}{input}=", Response: "{output}", LossAfter: "="}, NoSpecialInText([]string{"$"}))
	if err != nil {
		t.Fatal(err)
	}
	want := []Span{
		{Text: "a=$b=c$=", Plain: []tokenizer.Range{{From: 0, To: 4}, {From: 5, To: 8}}},
		{Text: "d$", Learnt: true, Plain: []tokenizer.Range{{From: 0, To: 2}}},
	}
	if diff := cmp.Diff(want, d.Spans(0)); diff != "" {
		t.Error(diff)
	}
}

// Tags that templates look for may stay as they are, but none that could be a part of a special token.
func TestMask(t *testing.T) {
	for _, c := range []struct {
		special []string
		text    string
		want    string // x for what is masked
	}{
		{[]string{"<s>", "</s>"}, "a<b>c</s> <s> p < 0.05", "a<b>cx/sx xsx p x 0.05"},
		{[]string{"<|a|>"}, "<b> <|a|> <c|a|> <<b>>", "<b> x|a|x xc|a|x x<b>x"},
		{[]string{"<|a|>"}, "<｜a｜> <|A|> <|a\x01|> <｜a| > </a_1-b>", "x｜a｜x x|A|x x|a\x01|x x｜a| x </a_1-b>"}, // and tags
		{[]string{"<s>", "<K>"}, "<S> <k> <\u212a> <ſ> <sk>", "xSx xkx x\u212ax xſx <sk>"},
		{[]string{"<a<b>c>"}, "<b> <a> <a<b>c>", "xbx <a> xaxbxcx"},
		{[]string{"<s"}, "<s> <t>", "xx> xt>"},
		{[]string{"[X]", ">"}, "<b> [X] [Y]", "<bx xXx xYx"},
		{[]string{"$"}, "<b>$", "<b>x"},
		{[]string{"<s>"}, "＜s＞ ﹤s≯ 中é <b>", "xsx xsx 中é <b>"}, // what normalisers make "<" and ">" of
		{[]string{"<s>"}, "<" + strings.Repeat("b", maxTag-1) + "><b>", "x" + strings.Repeat("b", maxTag-1) + "x<b>"},
	} {
		m, seen := newMasker(c.special), noticed{map[rune]bool{}, map[rune]bool{}}
		m.notice(c.text, seen)
		in, err := m.standIns(seen)
		if err != nil {
			t.Fatal(err)
		}
		masked := in.mask(c.text, false)
		got := strings.Map(func(r rune) rune {
			if r >= firstStandIn {
				return 'x'
			}
			return r
		}, masked)
		if got != c.want {
			t.Errorf("%q: %q becomes\n%q, want\n%q", c.special, c.text, got, c.want)
		}
		if back, plain := in.unmask(masked); back != c.text || len(plain) == 0 {
			t.Errorf("%q comes back as %q, %v", c.text, back, plain)
		}
	}
	used := map[rune]bool{}
	for c := rune(firstStandIn); c <= lastStandIn; c++ {
		used[c] = true
	}
	if _, err := newMasker([]string{"<s>"}).standIns(noticed{map[rune]bool{'<': true}, used}); err == nil || !strings.Contains(err.Error(), "private use") {
		t.Errorf("no stand-ins are left: %v", err)
	}
}

const answer = `{"role":"assistant","content":"a"}`

// Each of these rows has one thing wrong; the message must say where and what.
var badConversations = []struct{ name, text, want string }{
	{"no list", `{"messages":{"role":"user"}}`, `f:1: the field "messages": expected a list, got an object`},
	{"null", `{"messages":null}`, `f:1: the field "messages": expected a list, got null`},
	{"no messages", `{"messages":[]}`, `f:1: the field "messages" is empty`},
	{"no object", `{"messages":["hi"]}`, `f:1: messages[0]: expected an object, got "hi"`},
	{"no role", `{"messages":[{"content":"a"},` + answer + `]}`, `f:1: messages[0].role: expected a text, got nothing`},
	{"role is an object", `{"messages":[{"role":{"role":"user"},"content":"a"},` + answer + `]}`, `f:1: messages[0].role: expected a text, got an object`},
	{"no content", `{"messages":[{"role":"user"},` + answer + `]}`, `f:1: messages[0] has no content`},
	{"content is a number", `{"messages":[{"role":"user","content":7},` + answer + `]}`, `f:1: messages[0].content: expected a text, got the number 7`},
	{"content of texts", `{"messages":[{"role":"user","content":["a"]},` + answer + `]}`, `f:1: messages[0].content[0]: expected an object, got "a"`},
	{"no assistant", `{"messages":[{"role":"user","content":"a"}]}`,
		`f:1: no message is the assistant's, so that there is nothing to learn: the roles are "user", and not "assistant"`},
	{"an empty turn", `{"messages":[{"role":"assistant","content":" \n"}]}`, `f:1: messages[0]: the assistant's turn is empty`},
	{"a turn without content", `{"messages":[{"role":"assistant","content":null}]}`, `f:1: messages[0]: the assistant's turn is empty`},
	{"two problems", `{"messages":[{"role":7,"content":"a"},{"role":"user","content":8}]}`,
		"f:1: messages[0].role: expected a text, got the number 7\nmessages[1].content: expected a text, got the number 8"},
	{"an unknown role", `{"messages":[{"role":"narrator","content":"a"},` + answer + `]}`, `f:1: the chat template refuses the conversation: no narrators here`},
	{"a template's mistake", "\n[" + `{"messages":[{"role":"broken","content":"a"},` + answer + `]}]`, `f:2 (element 0): chat: line 3: upside down`},
	{"a template that leaves answers out", `{"messages":[{"role":"assistant","content":"silence"}]}`,
		`f:1: the chat template writes no answer of the assistant, so that there is nothing to learn`},
	{"a template that leaves calls out", `{"messages":[{"role":"user","content":"f"},{"role":"assistant","tool_calls":[{"name":"calls"},{"function":{"name":"f"}}]}]}`,
		`f:1: the chat template does not write the call of "f" (message 1, tool_calls[1]), so that it cannot be learnt: its text would lack the call`},
	{"a role in capitals", `{"messages":[{"role":"user","content":"a"},{"role":"Assistant","content":"b"}]}`,
		`f:1: no message is the assistant's, so that there is nothing to learn: the roles are "user", "Assistant", and not "assistant"`},
	{"key twice", `{"messages":[{"role":"user","role":"assistant","content":"a"}]}`, `f:1: key "role" is there twice at byte 28 of the line`},
	{"messages twice", `{"messages":[],"messages":[` + answer + `]}`, `f:1: key "messages" is there twice at byte 15 of the line`},
	{"key twice in an array", "[\n\n{\"messages\":[\n{\"role\":\"user\",\"role\":\"assistant\"}]}]", `f:3 (element 0): key "role" is there twice in line 4`},
	{"half of a surrogate pair", `{"messages":[{"role":"assistant","content":"a\ud83d"}]}`, `f:1: lone surrogate at byte 45 of the line`},
	{"NUL in the file", `{"messages":[{"role":"assistant","content":"a` + "\x00" + `"}]}`,
		"f:1: invalid character '\\x00' in string literal at byte 46 of the line"},
	{"tools are a number", `{"messages":[` + answer + `],"tools":7}`, `f:1: the field "tools": expected a list, got the number 7`},
	{"tools are words", `{"messages":[` + answer + `],"tools":"f and g"}`, `f:1: the field "tools" is a text, but no JSON: line 1, byte 0: want a value, got 'f'`},
	{"a tool is a name", `{"messages":[` + answer + `],"tools":["f"]}`, `f:1: tools[0]: expected an object, got "f"`},
	{"ShareGPT without a list", `{"conversations":"hi"}`, `f:1: the field "conversations": expected a list, got "hi"`},
	{"no speaker", `{"conversations":[{"value":1}]}`,
		"f:1: conversations[0].from: expected human, gpt, system or tool, got nothing\nconversations[0].value: expected a text, got the number 1"},
	{"an unknown speaker", `{"conversations":[{"from":"bard","value":"a"}]}`, `f:1: conversations[0].from: expected human, gpt, system or tool, got "bard"`},
	{"two system prompts", `{"conversations":[{"from":"system","value":"a"},{"from":"gpt","value":"a"}],"system":"b"}`,
		`f:1: conversations[0] is a system prompt, and the field "system" is another one`},
	{"two system prompts, one of them a message", `{"conversations":[{"role":"system","content":"a"},{"role":"assistant","content":"a"}],"system":"b"}`,
		`f:1: conversations[0] is a system prompt, and the field "system" is another one`},
	{"a system prompt that is a number", `{"conversations":[{"from":"gpt","value":"a"}],"system":1}`, `f:1: the field "system": expected a text, got the number 1`},
}

func TestBadConversations(t *testing.T) {
	for _, c := range badConversations {
		t.Run(c.name, func(t *testing.T) {
			if d, err := Read("f", strings.NewReader(c.text), Alpaca, WithChat(Chat{Template: fakeChat{}})); err == nil {
				t.Fatalf("no error, %+v", d.Spans(0))
			} else if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
		})
	}
}

// Rows that are made to cost much end in an error that names them, and the row after them is read.
func TestHostileConversations(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	for _, c := range []struct{ name, row, want string }{
		{"many empty turns", `{"messages":[` + strings.Repeat(`{"role":"user","content":""},`, 1_000_000) + answer + `]}`,
			`f:1: the row has 29000049 bytes; a conversation has at most 16777216`},
		{"some empty turns", `{"messages":[` + strings.Repeat(`{"role":"user","content":""},`, 100_000) + answer + `]}`,
			`f:1: the field "messages" has 100001 elements; at most 1024 can be`},
		{"many empty objects", `{"messages":[` + strings.Repeat(`{},`, 1_000_000) + answer + `]}`,
			`f:1: the row has 2000005 values; a conversation has at most 1048576`},
		{"many wrong turns", `{"messages":[` + strings.Repeat(`{},`, 1000) + answer + `]}`,
			"f:1: messages[0].role: expected a text, got nothing\nmessages[1].role: expected a text, got nothing\nmessages[2].role"},
		{"many wrong speakers", `{"conversations":[` + strings.Repeat(`{},`, 1000) + `{}]}`,
			"f:1: conversations[0].from: expected human, gpt, system or tool, got nothing\nconversations[0].value"},
		{"long", `{"messages":[{"role":"assistant","content":"` + strings.Repeat("a", 17<<20) + `"}]}`,
			`f:1: the row has 17825840 bytes; a conversation has at most 16777216`},
		{"deep", `{"messages":[` + answer + `],"x":` + nested(9000) + `}`, "f:1: nested deeper than 64 at byte "},
		{"deeper", `{"messages":[` + answer + `],"x":` + nested(1_000_000) + `}`, "f:1: invalid character '[' exceeded max depth at byte 10053 of the line"},
		{"deep tools", `{"messages":[` + answer + `],"tools":"` + nested(100_000) + `"}`,
			`f:1: the field "tools" is a text, but no JSON: line 1, byte 64: nested deeper than 64`},
		{"deep content", `{"messages":[{"role":"assistant","content":` + nested(100) + `}]}`, "f:1: nested deeper than 64 at byte "},
	} {
		text := c.row + "\n{\"messages\":[" + answer + "]}\n"
		d, err := Read("f", strings.NewReader(text), Alpaca, WithChat(Chat{Template: fakeChat{}}), SkipBad())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d.Len() != 1 || d.Bad() != 1 || !strings.HasPrefix(d.BadRows()[0].Error(), c.want) || len(d.BadRows()[0].Error()) > 1000 {
			t.Errorf("%s: %d rows, %d bad: %.2000s\nwant %s", c.name, d.Len(), d.Bad(), d.BadRows(), c.want)
		}
	}
	long := strings.Repeat("<$ ", 10<<20/3)
	d, err := Read("f", strings.NewReader(`{"messages":[{"role":"user","content":"`+long+`"},`+answer+`]}`), Alpaca,
		WithChat(Chat{Template: fakeChat{}}), NoSpecialInText([]string{"<s>", "$"}))
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Spans(0)[0]; len(s.Text) < 10<<20-20 || len(s.Plain) != 10<<20/3 {
		t.Errorf("a text of %d bytes with %d plain parts", len(s.Text), len(s.Plain))
	}
}

// A template that looks into what is said cannot have special tokens in it told apart.
func TestTemplateLooksIntoContent(t *testing.T) {
	_, err := Read("f", strings.NewReader(`{"messages":[{"role":"user","content":"^! $"},`+answer+`]}`), Alpaca,
		WithChat(Chat{Template: fakeChat{}}), NoSpecialInText([]string{"^", "$"}))
	if err == nil || !strings.HasPrefix(err.Error(), "f:1: the chat template looks into what is said") {
		t.Errorf("%v", err)
	}
}

func TestNoChatTemplate(t *testing.T) {
	text := `{"prompt":"p","completion":"c"}` + "\n" + `{"messages":[` + answer + `]}`
	for _, c := range []struct {
		name string
		tmpl Template
		opts []Option
		want string
	}{
		{"a conversation", Alpaca, nil, "f:2: the row is a conversation: there is no chat template to make text of it"},
		{"with a reason", Alpaca, []Option{WithChat(Chat{Missing: errors.New("give one")})}, "f:2: the row is a conversation: give one"},
		{"it is no bad row", Alpaca, []Option{SkipBad()}, "f:2: the row is a conversation: there is no chat template to make text of it"},
		{"other rows in the template chat", InChat, nil, "f:1: the row is a conversation: there is no chat template to make text of it"},
	} {
		if _, err := Read("f", strings.NewReader(text), c.tmpl, c.opts...); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// Rows that only the template refuses are counted and named among the others, in the order of the file.
func TestBadRowsInOrder(t *testing.T) {
	const refused, malformed, good = `{"messages":[{"role":"narrator","content":""},` + answer + `]}`, `{`, `{"messages":[` + answer + `]}`
	text := strings.Repeat(strings.Join([]string{malformed, good, refused, ""}, "\n"), 20)
	chat := WithChat(Chat{Template: fakeChat{}})
	d, err := Read("f", strings.NewReader(text), Alpaca, chat, SkipBad())
	if err != nil || d.Len() != 20 || d.Bad() != 40 {
		t.Fatalf("%v, %+v", err, d)
	}
	var lines []string
	for _, err := range d.BadRows() {
		lines = append(lines, strings.SplitN(err.Error(), ":", 3)[1])
	}
	if got := strings.Join(lines, " "); got != "1 3 4 6 7 9 10 12 13 15" {
		t.Errorf("the bad rows are of the lines %s", got)
	}
	for i := range d.Len() {
		if got, want := d.Row(i).Place(), fmt.Sprintf("f:%d", 3*i+2); got != want || d.Spans(i) == nil {
			t.Errorf("row %d is %s, want %s: %+v", i, got, want, d.Spans(i))
		}
	}
	_, err = Read("f", strings.NewReader(text), Alpaca, chat)
	if err == nil || !strings.HasSuffix(err.Error(), "f: 30 more bad rows (40 of 60 rows are bad)") {
		t.Errorf("%v", err)
	}
}

func TestOnlyRows(t *testing.T) {
	text := `{"prompt":"0","completion":"c"}
{
{"messages":[{"role":"assistant","content":"1"}]}
{"messages":[{"role":"assistant","content":"2"}]}
{"prompt":"3","completion":"c"}
and what follows is not read
`
	read := func(from, n int) (*Dataset, error) {
		return Read("f", strings.NewReader(text), Alpaca, WithChat(Chat{Template: fakeChat{}}), SkipBad(), OnlyRows(from, n))
	}
	d, err := read(1, 3)
	if err != nil || d.Len() != 3 || d.Bad() != 1 || d.Row(0).Place() != "f:3" || d.Spans(1)[1].Text != "2$" || d.Row(2).Prompt != "3" {
		t.Errorf("%v, %+v", err, d)
	}
	if d, err = read(3, 100); err != nil || d.Len() != 1 || d.Bad() != 2 {
		t.Errorf("%v, %+v", err, d)
	}
	for _, c := range []struct {
		from, n int
		want    string
	}{
		{4, 1, "f: 4 rows are to be passed over, and the data set has no more than 4"},
		{-1, 1, "rows from -1 on, 1 of them: expected one at least, counted from 0"},
		{0, 0, "rows from 0 on, 0 of them: expected one at least, counted from 0"},
	} {
		if _, err := read(c.from, c.n); err == nil || err.Error() != c.want {
			t.Errorf("%d, %d: %v, want %s", c.from, c.n, err, c.want)
		}
	}
}

func TestReadingEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, row := range []string{`{"prompt":"p","completion":"c"}`, `{"messages":[` + answer + `]}`} {
		if _, err := Read("f", strings.NewReader(row), Alpaca, WithChat(Chat{Template: fakeChat{}}), WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// Cut in the middle of an answer the rest is not learnt; cut before it, the row is left out.
func TestConversationsAreCut(t *testing.T) {
	d, err := Read("f", strings.NewReader(`{"messages":[{"role":"assistant","content":"ab"},{"role":"user","content":"cd"},{"role":"assistant","content":"ef"}]}`),
		Alpaca, WithChat(Chat{Template: fakeChat{}}))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{11: "(^assistant:)", 12: "(^assistant:)a", 14: "(^assistant:)ab$", 15: "(^assistant:)ab$(u)",
		33: "(^assistant:)ab$(user:cd$assistant:)e", 0: "(^assistant:)ab$(user:cd$assistant:)ef$"} {
		x, err := d.Tokenize(t.Context(), runes{}, TokenizeOptions{MaxLength: n})
		if n == 11 {
			if err == nil || !strings.HasPrefix(err.Error(), "nothing to learn") {
				t.Errorf("cut at %d: %v", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := show(&x.List[0]); got != want || x.NoEOS || x.Cut == 1 != (n > 0) {
			t.Errorf("cut at %d: %s, want %s; %+v", n, got, want, x)
		}
	}
	x, err := d.Tokenize(t.Context(), both, TokenizeOptions{TrainOnInputs: true})
	if err != nil || show(&x.List[0]) != "^assistant:ab$user:cd$assistant:ef$" {
		t.Errorf("%v, %s", err, show(&x.List[0]))
	}
}
