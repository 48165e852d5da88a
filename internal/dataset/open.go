package dataset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/regular"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/tokenizer/chat"
	"github.com/biolora/biolora/train/instruct"
)

// Data is rows and the tokenizer that makes tokens of them.
type Data struct {
	Rows *instruct.Dataset
	// Tokenizer is the model's. It is nil where the model has none and all rows are token ids.
	Tokenizer *tokenizer.Tokenizer
	Warnings  []string
}

// turns are the values of AssistantTurns.
var turns = []string{"all", "last"}

// Check says what is wrong with the settings by themselves.
func (r *Rows) Check() error {
	var errs []error
	if !slices.Contains(turns, r.AssistantTurns) {
		errs = append(errs, fmt.Errorf("--assistant-turns (assistant_turns): %q is none of %s", r.AssistantTurns, strings.Join(turns, ", ")))
	}
	if _, err := r.now(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// now is the time that chat templates are told.
func (r *Rows) now() (time.Time, error) {
	if r.TemplateDate == "" {
		return time.Now().Truncate(time.Second), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, r.TemplateDate); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--template-date (template_date): %q is no date: want 2006-01-02 or 2006-01-02T15:04:05Z", r.TemplateDate)
}

// OpenFor reads the rows of files as one data set for the model at path: a checkpoint directory or a .gguf file. The
// settings then say what was used, so that they repeat it: the path of a chat template's file, the time that templates
// are told. With options, which may leave rows out, settings that are for no row are no error.
func (r *Rows) OpenFor(ctx context.Context, path string, paths []string, opts ...instruct.Option) (*Data, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	template, err := instruct.LoadTemplate(r.Template)
	if err != nil {
		return nil, err
	}
	d := &Data{}
	var modelErr error
	if _, modelErr = os.Stat(path); modelErr != nil {
		modelErr = fmt.Errorf("model: %w", modelErr)
	} else if d.Tokenizer, modelErr = openTokenizer(path); modelErr != nil {
		d.Tokenizer = nil
	}
	chat, chatErr := r.chat(d.Tokenizer, path)
	d.Rows, err = r.read(ctx, paths, template.WithEmptyInputs(r.EmptyInput...), chat, d.Tokenizer, opts)
	if err == nil {
		if len(opts) == 0 {
			err = r.used(d.Rows.Conversations())
		}
		for _, bad := range d.Rows.BadRows() {
			d.Warnings = append(d.Warnings, "left out: "+bad.Error())
		}
		if d.Tokenizer == nil && errors.Is(modelErr, fs.ErrNotExist) && exists(path) && d.Rows.OnlyTokens() {
			d.Warnings = append(d.Warnings, fmt.Sprintf("%s has no tokenizer; the rows are token ids, so none is needed", path))
			modelErr = nil
		}
	}
	if err := errors.Join(modelErr, chatErr, err); err != nil {
		return nil, err
	}
	if d.Tokenizer != nil {
		d.Warnings = append(d.Warnings, d.Tokenizer.Warnings()...)
	}
	if d.Rows.Conversations() > 0 {
		r.TemplateDate = chat.Now.Format(time.RFC3339)
	}
	return d, nil
}

// openTokenizer opens a model's tokenizer. A configuration that cannot be read is left to who reads the model: it would
// be told twice.
func openTokenizer(path string) (*tokenizer.Tokenizer, error) {
	t, err := tokenizer.Load(path)
	if err == nil {
		return t, nil
	}
	if _, _, bad := model.ReadConfig(path); bad == nil || errors.Is(bad, fs.ErrNotExist) {
		return nil, err
	}
	return tokenizer.Load(path, tokenizer.TokenizerFilesOnly())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// read reads the rows.
func (r *Rows) read(ctx context.Context, paths []string, t instruct.Template, c instruct.Chat, tok *tokenizer.Tokenizer, opts []instruct.Option) (*instruct.Dataset, error) {
	opts = append([]instruct.Option{
		instruct.WithContext(ctx),
		instruct.WithChat(c),
		instruct.WithFields(instruct.Fields{
			Instruction: r.FieldInstruction, Input: r.FieldInput, Output: r.FieldOutput,
			Prompt: r.FieldPrompt, Completion: r.FieldCompletion,
		}),
	}, opts...)
	if r.SkipBadRows {
		opts = append(opts, instruct.SkipBad())
	}
	if r.NoSpecialInText && tok != nil {
		opts = append(opts, instruct.NoSpecialInText(tok.SpecialTokens()))
	}
	return instruct.OpenAll(paths, t, opts...)
}

// used complains of settings for conversations where no row is one.
func (r *Rows) used(conversations int) error {
	if conversations > 0 {
		return nil
	}
	var errs []error
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"--chat-template (chat_template)", r.ChatTemplate != ""},
		{"--system-prompt (system_prompt)", r.SystemPrompt != ""},
		{"--assistant-turns (assistant_turns)", r.AssistantTurns != turns[0]},
		{"--template-date (template_date)", r.TemplateDate != ""},
	} {
		if s.given {
			errs = append(errs, fmt.Errorf("%s is for conversations, and no row is one; --template chat makes conversations of all", s.name))
		}
	}
	return errors.Join(errs...)
}

// chat says how conversations become text. What is wrong with the model's own chat template matters only to rows that
// need it; what is wrong with one that is asked for is an error.
func (r *Rows) chat(tok *tokenizer.Tokenizer, model string) (c instruct.Chat, err error) {
	c = instruct.Chat{SystemPrompt: r.SystemPrompt, LastTurn: r.AssistantTurns == "last", Variables: map[string]any{}}
	if c.Now, err = r.now(); err != nil {
		return c, err
	}
	var templates map[string]string
	if tok != nil {
		templates = tok.ChatTemplates()
		for name, token := range tok.SpecialNames() {
			c.Variables[name] = token
		}
	}
	if r.ChatTemplate != "" {
		t, err := r.chosen(templates)
		if err != nil {
			c.Missing = errors.New("the chat template cannot be used")
			return c, err
		}
		c.Template = t
		return c, nil
	}
	if tok == nil {
		c.Missing = errors.New("the chat template is the tokenizer's, which cannot be opened")
		return c, nil
	}
	for name, use := range map[string]*instruct.ChatTemplate{"default": &c.Template, "tool_use": &c.ToolTemplate} {
		source, ok := templates[name]
		if !ok {
			continue
		}
		t, err := chat.Parse(source)
		if err != nil {
			c.Missing = fmt.Errorf("the chat template of %s cannot be used (--chat-template FILE gives another one): %w", model, err)
			continue
		}
		*use = t
	}
	if names := slices.Sorted(maps.Keys(templates)); c.Missing == nil && len(names) > 0 {
		c.Missing = fmt.Errorf("%s has no chat template for it: choose one with --chat-template (it has %s), or give a file", model, strings.Join(names, ", "))
	} else if c.Missing == nil {
		c.Missing = fmt.Errorf("%s has no chat template: give one with --chat-template FILE", model)
	}
	return c, nil
}

// MaxTemplate is the largest file that is read as a chat template, in bytes; chat.Parse takes no more.
const MaxTemplate = 1 << 20

// chosen is the chat template that is asked for: one of the tokenizer's, or a file.
func (r *Rows) chosen(templates map[string]string) (*chat.Template, error) {
	source, file, err := chatSource(r.ChatTemplate, templates)
	if err != nil {
		return nil, err
	}
	if file {
		if r.ChatTemplate, err = filepath.Abs(r.ChatTemplate); err != nil {
			return nil, fmt.Errorf("chat template: %w", err)
		}
	}
	t, err := chat.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.ChatTemplate, err)
	}
	return t, nil
}

// ChatSource is the text of a chat template: that of the tokenizer of this name, or else a file's. Of no name it is the
// tokenizer's own, and an error where that has none.
func ChatSource(tok *tokenizer.Tokenizer, nameOrFile string) (string, error) {
	if nameOrFile == "" {
		if source, ok := tok.ChatTemplate(); ok {
			return source, nil
		}
		return "", errors.New("the model has no chat template: name a file")
	}
	source, _, err := chatSource(nameOrFile, tok.ChatTemplates())
	return source, err
}

func chatSource(nameOrFile string, templates map[string]string) (source string, file bool, err error) {
	if source, ok := templates[nameOrFile]; ok {
		return source, false, nil
	}
	text, err := regular.ReadFile(nameOrFile, MaxTemplate)
	if err != nil {
		names := "none"
		if len(templates) > 0 {
			names = strings.Join(slices.Sorted(maps.Keys(templates)), ", ")
		}
		return "", true, fmt.Errorf("chat template %q is neither one of the tokenizer's (%s) nor a file that can be read: %w", nameOrFile, names, err)
	}
	return string(text), true, nil
}
