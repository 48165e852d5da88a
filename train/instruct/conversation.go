package instruct

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/jsoncut"
	"github.com/biolora/biolora/internal/strictjson"
)

// The limits of a conversation bound the memory that a row takes while it is read, and the time that chat templates take
// for it: some are run once or twice for each turn to find where it begins.
const (
	maxMessages          = 1024
	maxConversationBytes = 16 << 20
	maxValues            = 1 << 20 // in the row's JSON
)

// conversation is what a row has for a chat template.
type conversation struct {
	messages []*strictjson.Object
	tools    []*strictjson.Object // nil for none
}

// speakers are the names that ShareGPT's rows have for roles.
var speakers = map[string]string{
	"system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
	"tool": "tool", "observation": "tool",
}

// parseConversation reads a row {messages, tools} or {conversations, system, tools}, whose elements have ShareGPT's form
// or that of messages. Unlike other rows it may have no key twice: whose words are learnt hangs on it.
func parseConversation(raw jsoncut.Record) (*conversation, error) {
	if n := len(raw.JSON); n > maxConversationBytes {
		return nil, fmt.Errorf("the row has %d bytes; a conversation has at most %d", n, maxConversationBytes)
	}
	if n := countValues(raw.JSON); n > maxValues {
		return nil, fmt.Errorf("the row has %d values; a conversation has at most %d", n, maxValues)
	}
	row, err := strictjson.ParseObject(raw.JSON)
	if err != nil {
		return nil, strictError(raw, err)
	}
	p := conversationParser{row: row}
	c := &conversation{}
	if _, ok := row.Get("messages"); ok {
		c.messages = p.objects("messages")
	} else {
		c.messages = p.shareGPT(p.objects("conversations"))
	}
	c.tools = p.tools()
	if len(p.errs) == 0 {
		p.check(c)
	}
	return c, errors.Join(p.errs...)
}

// strictError says where in the file an error of strictjson is.
func strictError(raw jsoncut.Record, err error) error {
	var e *strictjson.Error
	if !errors.As(err, &e) {
		return err
	}
	if raw.Element < 0 {
		return fmt.Errorf("%s at byte %d of the line", e.Msg, e.Offset)
	}
	return fmt.Errorf("%s in line %d", e.Msg, raw.Line+e.Line-1)
}

// countValues returns the number of values in a JSON text, or a little more.
func countValues(text []byte) int {
	n, quoted, escaped := 1, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == ',' || c == '{' || c == '[':
			n++
		}
	}
	return n
}

// conversationParser gathers what is wrong with a row.
type conversationParser struct {
	row  *strictjson.Object
	errs []error
}

func (p *conversationParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

// objects reads a list of objects that is not empty.
func (p *conversationParser) objects(name string) []*strictjson.Object {
	v, _ := p.row.Get(name)
	list, ok := v.([]any)
	if !ok {
		p.fail("the field %q: expected a list, got %s", name, strictjson.Kind(v))
		return nil
	}
	if len(list) == 0 {
		p.fail("the field %q is empty", name)
	}
	if len(list) > maxMessages {
		p.fail("the field %q has %d elements; at most %d can be", name, len(list), maxMessages)
		return nil
	}
	return p.toObjects(name, list)
}

func (p *conversationParser) toObjects(name string, list []any) []*strictjson.Object {
	out := make([]*strictjson.Object, len(list))
	for i, v := range list {
		o, ok := v.(*strictjson.Object)
		if !ok {
			p.fail("%s[%d]: expected an object, got %s", name, i, strictjson.Kind(v))
			return nil
		}
		out[i] = o
	}
	return out
}

// tools reads the list of tools, which some data sets have as JSON in a text.
func (p *conversationParser) tools() []*strictjson.Object {
	v, _ := p.row.Get("tools")
	if s, ok := v.(string); ok {
		if strip(s) == "" {
			return nil
		}
		var err error
		if v, err = strictjson.Parse([]byte(s)); err != nil {
			p.fail("the field \"tools\" is a text, but no JSON: %w", err)
			return nil
		}
	}
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		p.fail("the field \"tools\": expected a list, got %s", strictjson.Kind(v))
		return nil
	}
	if len(list) == 0 {
		return nil
	}
	return p.toObjects("tools", list)
}

// shareGPT makes messages of {from, value}, with the row's own system prompt, if it has one, in front.
func (p *conversationParser) shareGPT(list []*strictjson.Object) (messages []*strictjson.Object) {
	switch v, _ := p.row.Get("system"); s := v.(type) {
	case nil:
	case string:
		if strip(s) != "" {
			messages = append(messages, message("system", s))
		}
	default:
		p.fail("the field \"system\": expected a text, got %s", strictjson.Kind(v))
	}
	again := func(i int, role any) {
		if role == "system" && len(messages) > 0 && i == 0 {
			p.fail("conversations[0] is a system prompt, and the field \"system\" is another one")
		}
	}
	for i, o := range list {
		if role, ok := o.Get("role"); ok { // {role, content} under ShareGPT's name
			again(i, role)
			messages = append(messages, o)
			continue
		}
		from, _ := o.Get("from")
		value, _ := o.Get("value")
		name, ok := from.(string)
		text, isText := value.(string)
		role := speakers[name]
		if !ok || role == "" {
			p.fail("conversations[%d].from: expected human, gpt, system or tool, got %s", i, kindOf(o, "from"))
		}
		if !isText {
			p.fail("conversations[%d].value: expected a text, got %s", i, kindOf(o, "value"))
		}
		again(i, role)
		if len(p.errs) >= maxReported {
			break
		}
		messages = append(messages, message(role, text))
	}
	return messages
}

func message(role, content string) *strictjson.Object {
	o := strictjson.NewObject()
	o.Set("role", role)
	o.Set("content", content)
	return o
}

func kindOf(o *strictjson.Object, key string) string {
	v, ok := o.Get(key)
	if !ok {
		return "nothing"
	}
	return strictjson.Kind(v)
}

// check says what is wrong with messages that no template has to look at.
func (p *conversationParser) check(c *conversation) {
	answers := 0
	var roles []string
	for i, m := range c.messages {
		if len(p.errs) >= maxReported {
			return
		}
		role, ok := get[string](m, "role")
		if !ok || role == "" {
			p.fail("messages[%d].role: expected a text, got %s", i, kindOf(m, "role"))
			continue
		}
		text, err := contentOf(m)
		if err != nil {
			p.fail("messages[%d].%w", i, err)
			continue
		}
		calls, _ := get[[]any](m, "tool_calls")
		if _, ok := m.Get("content"); !ok && len(calls) == 0 {
			p.fail("messages[%d] has no content", i)
			continue
		}
		if role != "assistant" {
			if name := strconv.Quote(abbreviate([]byte(role))); len(roles) < maxReported && !slices.Contains(roles, name) {
				roles = append(roles, name)
			}
			continue
		}
		answers++
		if strip(text) == "" && len(calls) == 0 {
			p.fail("messages[%d]: the assistant's turn is empty", i)
		}
	}
	if answers == 0 && len(p.errs) == 0 {
		p.fail("no message is the assistant's, so that there is nothing to learn: the roles are %s, and not \"assistant\"", strings.Join(roles, ", "))
	}
}

// contentOf returns the text of a message: its content, or the parts of its content that are text.
func contentOf(m *strictjson.Object) (string, error) {
	v, _ := m.Get("content")
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []any:
		var b strings.Builder
		for i, e := range v {
			part, ok := e.(*strictjson.Object)
			if !ok {
				return "", fmt.Errorf("content[%d]: expected an object, got %s", i, strictjson.Kind(e))
			}
			text, _ := get[string](part, "text")
			b.WriteString(text)
		}
		return b.String(), nil
	}
	return "", fmt.Errorf("content: expected a text, got %s", strictjson.Kind(v))
}

func get[T any](o *strictjson.Object, key string) (T, bool) {
	v, _ := o.Get(key)
	t, ok := v.(T)
	return t, ok
}

// withSystem returns the messages with a system prompt, unless they have one.
func (c *conversation) withSystem(prompt string) []*strictjson.Object {
	isSystem := func(m *strictjson.Object) bool {
		role, _ := get[string](m, "role")
		return role == "system" || role == "developer"
	}
	if prompt == "" || slices.ContainsFunc(c.messages, isSystem) {
		return c.messages
	}
	return append([]*strictjson.Object{message("system", prompt)}, c.messages...)
}

// encodeJSON writes objects as JSON, as a chat template is given them.
func encodeJSON(objects []*strictjson.Object) []json.RawMessage {
	if objects == nil {
		return nil
	}
	out := make([]json.RawMessage, len(objects))
	for i, o := range objects {
		out[i] = bytes.TrimSpace(strictjson.Format(o))
	}
	return out
}
