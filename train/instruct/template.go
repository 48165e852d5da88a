package instruct

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/internal/strictjson"
	"github.com/biolora/biolora/internal/strictyaml"
	"github.com/biolora/biolora/tokenizer"
)

// Template makes text of a row. The placeholders {instruction}, {input} and {output} are replaced in one pass: what
// a row says is never read as a placeholder.
type Template struct {
	Name string
	// PromptInput is the prompt of a row with an input, PromptNoInput of a row without. Where PromptNoInput is
	// empty, PromptInput serves all rows.
	PromptInput, PromptNoInput string
	// Response is what is learnt, up to the EOS token.
	Response string
	// Inference is the prompt to generate from where it is not the one of the training text; or empty.
	Inference string
	// LossAfter moves the beginning of the loss behind the last occurrence of this string in the whole text;
	// empty: the loss begins with the response.
	LossAfter string
	// Chat makes a conversation of a row: the prompt is the user's turn, the response the assistant's, and the model's
	// chat template makes text of it. Rows {prompt, completion} become conversations too.
	Chat bool
	// EmptyInputs are inputs that count as none and become the empty string, compared without white space around them and in lower case.
	EmptyInputs []string
}

// EmptyInputs are the inputs that count as none in the built-in templates and in templates read from files. BioInstruct
// has several of these where a row has no input.
func EmptyInputs() []string {
	return []string{"", "(no input)", "(none)", "n/a", "no input", "none", "none required", "none required."}
}

// Alpaca is the prompt of Stanford Alpaca (tatsu-lab/stanford_alpaca, train.py).
var Alpaca = Template{
	Name: "alpaca",
	PromptInput: "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
	PromptNoInput: "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request.\n\n" +
		"### Instruction:\n{instruction}\n\n### Response:\n",
	Response:    "{output}",
	EmptyInputs: EmptyInputs(),
}

// MedTuned is the training text of Llama2-MedTuned (Rohanian et al., 2023), its odd spaces included; the end of the
// sequence follows the response. Its authors generate from another text, which is Inference, and leave inputs as they
// stand, so no input counts as none.
var MedTuned = Template{
	Name:        "medtuned",
	PromptInput: "### Instruction: {instruction}\n ### Input: {input}\n ### Output:",
	Response:    " {output} \n",
	Inference:   "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Output:\n",
	LossAfter:   "### Output:",
}

// InChat puts rows into the model's own chat template: the instruction and, after a blank line, the input are the user's
// turn.
var InChat = Template{
	Name:          "chat",
	PromptInput:   "{instruction}\n\n{input}",
	PromptNoInput: "{instruction}",
	Response:      "{output}",
	Chat:          true,
	EmptyInputs:   EmptyInputs(),
}

func builtin() []Template { return []Template{Alpaca, MedTuned, InChat} }

// LoadTemplate returns the built-in template of that name ("alpaca", "medtuned", "chat"), or reads a file; see
// ReadTemplate.
func LoadTemplate(nameOrFile string) (Template, error) {
	var names []string
	for _, t := range builtin() {
		if t.Name == nameOrFile {
			return t, nil
		}
		names = append(names, t.Name)
	}
	f, err := regular.Open(nameOrFile)
	if err != nil {
		return Template{}, fmt.Errorf("template %q is neither built in (%s) nor a file that can be read: %w",
			nameOrFile, strings.Join(names, ", "), err)
	}
	defer f.Close()
	return ReadTemplate(nameOrFile, f)
}

// ReadTemplate reads a template from YAML, of at most 64 KiB. Keys: prompt_input (with {instruction} and {input}),
// prompt_no_input (with {instruction}; where it is left out, prompt_input serves all rows), response (with {output}, the
// default), inference (a prompt to generate from, where it is another one). Other keys and placeholders are errors.
func ReadTemplate(name string, src io.Reader) (Template, error) {
	text, err := io.ReadAll(io.LimitReader(src, strictyaml.MaxBytes+1))
	if err != nil {
		return Template{}, fmt.Errorf("template %s: %w", name, err)
	}
	t := Template{Name: name, Response: "{output}", EmptyInputs: EmptyInputs()}
	if err := t.decode(text); err != nil {
		return Template{}, err
	}
	return t, t.validate()
}

// decode sets what a YAML text gives.
func (t *Template) decode(text []byte) error {
	entries, err := strictyaml.Parse(text)
	if err != nil {
		return fmt.Errorf("template %s: %w", t.Name, err)
	}
	fields := map[string]*string{
		"prompt_input": &t.PromptInput, "prompt_no_input": &t.PromptNoInput, "response": &t.Response, "inference": &t.Inference,
	}
	var errs []error
	for _, e := range entries {
		key := e.Key.GetToken()
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("template %s: line %d: %w", t.Name, key.Position.Line, fmt.Errorf(format, args...)))
		}
		field, ok := fields[key.Value]
		if !ok {
			fail("unknown key %q; it may be %s", key.Value, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
			continue
		}
		if e.Value.Type() == ast.NullType {
			continue
		}
		value, _, ok := strictyaml.Scalar(e.Value)
		if !ok {
			fail("%s: expected a text, got %s", key.Value, strictyaml.Describe(e.Value))
			continue
		}
		*field = value
	}
	return errors.Join(errs...)
}

// WithEmptyInputs returns the template with more inputs that count as none.
func (t Template) WithEmptyInputs(more ...string) Template {
	t.EmptyInputs = slices.Clone(t.EmptyInputs)
	for _, s := range more {
		t.EmptyInputs = append(t.EmptyInputs, strings.ToLower(strip(s)))
	}
	return t
}

// placeholder finds what looks like one; braces around anything else are text.
var placeholder = regexp.MustCompile(`\{[A-Za-z_][A-Za-z0-9_]*\}`)

func (t Template) validate() error {
	if t.PromptInput == "" {
		return fmt.Errorf("template %s: prompt_input is missing", t.Name)
	}
	var errs []error
	check := func(key, text string, must, may []string) {
		found := placeholder.FindAllString(text, -1)
		for _, f := range found {
			if !slices.Contains(must, f) && !slices.Contains(may, f) {
				errs = append(errs, fmt.Errorf("template %s: %s has the placeholder %s; it may have %s",
					t.Name, key, f, strings.Join(slices.Concat(must, may), ", ")))
			}
		}
		for _, m := range must {
			if !slices.Contains(found, m) {
				errs = append(errs, fmt.Errorf("template %s: %s lacks the placeholder %s", t.Name, key, m))
			}
		}
	}
	check("prompt_input", t.PromptInput, []string{"{instruction}", "{input}"}, nil)
	if t.PromptNoInput != "" {
		check("prompt_no_input", t.PromptNoInput, []string{"{instruction}"}, nil)
	}
	check("response", t.Response, []string{"{output}"}, []string{"{instruction}", "{input}"})
	if t.Inference != "" {
		check("inference", t.Inference, []string{"{instruction}", "{input}"}, nil)
	}
	return errors.Join(errs...)
}

// Render returns the prompt and the response of a training text: what is masked and what is learnt.
func (t Template) Render(instruction, input, output string) (prompt, response string) {
	p, r := t.render(instruction, input, output)
	return p.Text, r.Text
}

// render is Render, and says where the row's own words are.
func (t Template) render(instruction, input, output string) (prompt, response Span) {
	text, input := t.promptFor(input)
	values := map[string]string{"{instruction}": instruction, "{input}": input, "{output}": output}
	prompt, response = fill(text, values), fill(t.Response, values)
	response.Learnt = true
	if t.LossAfter == "" {
		return prompt, response
	}
	whole := prompt.Text + response.Text
	i := strings.LastIndex(whole, t.LossAfter)
	if i < 0 {
		return prompt, response
	}
	border := i + len(t.LossAfter)
	plain := append(prompt.Plain, moved(response.Plain, len(prompt.Text))...)
	prompt, response = Span{Text: whole[:border]}, Span{Text: whole[border:], Learnt: true}
	for _, r := range plain {
		if r.From < border {
			prompt.Plain = append(prompt.Plain, tokenizer.Range{From: r.From, To: min(r.To, border)})
		}
		if r.To > border {
			response.Plain = append(response.Plain, tokenizer.Range{From: max(r.From-border, 0), To: r.To - border})
		}
	}
	return prompt, response
}

// moved returns ranges in a text that has n bytes in front.
func moved(ranges []tokenizer.Range, n int) []tokenizer.Range {
	out := make([]tokenizer.Range, len(ranges))
	for i, r := range ranges {
		out[i] = tokenizer.Range{From: r.From + n, To: r.To + n}
	}
	return out
}

// fill puts values in the place of placeholders. Plain of the result is where they are.
func fill(text string, values map[string]string) Span {
	var b strings.Builder
	var plain []tokenizer.Range
	from := 0
	for _, at := range placeholder.FindAllStringIndex(text, -1) {
		b.WriteString(text[from:at[0]])
		value, ok := values[text[at[0]:at[1]]]
		if ok && value != "" {
			plain = append(plain, tokenizer.Range{From: b.Len(), To: b.Len() + len(value)})
		} else if !ok {
			value = text[at[0]:at[1]]
		}
		b.WriteString(value)
		from = at[1]
	}
	b.WriteString(text[from:])
	return Span{Text: b.String(), Plain: plain}
}

// Prompt returns the text to generate from.
func (t Template) Prompt(instruction, input string) string {
	text, input := t.promptFor(input)
	if t.Inference != "" {
		text = t.Inference
	}
	return fill(text, map[string]string{"{instruction}": instruction, "{input}": input}).Text
}

// promptFor chooses the prompt for an input, and says what the input then is.
func (t Template) promptFor(input string) (text, normalised string) {
	if !slices.Contains(t.EmptyInputs, strings.ToLower(strip(input))) {
		return t.PromptInput, input
	}
	if t.PromptNoInput == "" {
		return t.PromptInput, ""
	}
	return t.PromptNoInput, ""
}

// conversation is what a chat template gets of a row.
func (t Template) conversation(r *Row) *conversation {
	prompt, response := r.Prompt, r.Completion
	if r.Kind == Instruction {
		prompt, response = t.Render(r.Instruction, r.Input, r.Output)
	}
	return &conversation{messages: []*strictjson.Object{message("user", prompt), message("assistant", response)}}
}
