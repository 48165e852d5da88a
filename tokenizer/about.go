package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// about is what is known of a tokenizer beside how it works.
type about struct {
	format    string
	templates map[string]string
	names     map[string]string
}

// Format returns the form of the file that t was read from: "tokenizer.json", "SentencePiece", "tiktoken" or "GGUF".
func (t *Tokenizer) Format() string { return t.about.format }

// ChatTemplate returns the Jinja source of the chat template that is used where none is asked for by name.
func (t *Tokenizer) ChatTemplate() (source string, ok bool) {
	source, ok = t.about.templates[defaultTemplate]
	return source, ok
}

// ChatTemplates returns the Jinja sources of all chat templates by their names, such as "default" and "tool_use". They
// come from chat_template.jinja and additional_chat_templates, else from tokenizer_config.json, else from
// chat_template.json, or from the metadata of a GGUF file.
func (t *Tokenizer) ChatTemplates() map[string]string { return maps.Clone(t.about.templates) }

// SpecialNames returns the tokens that have a role, by its name: "bos_token" -> "<s>". These are the variables that
// Transformers gives to chat templates.
func (t *Tokenizer) SpecialNames() map[string]string { return maps.Clone(t.about.names) }

// describe notes what is known of the tokenizer.
func (b *builder) describe(t *Tokenizer) {
	t.about = about{format: b.format, templates: b.settings.templates, names: make(map[string]string)}
	if len(t.about.templates) == 0 {
		t.about.templates = b.templates
	}
	for _, n := range b.settings.named {
		if n.role != "" {
			t.about.names[n.role] = n.token.Content
		}
	}
	b.roles["bos_token"], b.roles["eos_token"] = t.bos, t.eos
	for role, id := range b.roles {
		if text, ok := t.Token(id); ok && t.about.names[role] == "" {
			t.about.names[role] = text
		}
	}
	if b.noBOS {
		t.bos = none
	}
	if n := len(b.warnings) - maxWarnings; n > 0 {
		b.warnings = append(b.warnings[:maxWarnings:maxWarnings], fmt.Sprintf("and %d more warnings", n))
	}
	t.warnings = b.warnings
}

const maxWarnings = 50

const (
	defaultTemplate = "default"
	maxTemplate     = 1 << 20 // bytes; real ones have up to some ten thousand
	maxTemplates    = 64
)

// readTemplates reads the chat templates that are files of their own and returns their paths. Where there is any, those
// of tokenizer_config.json do not count, as in Transformers.
func (s *settings) readTemplates(dir string) ([]string, error) {
	found := make(map[string]string)
	var paths []string
	var bad problems
	read := func(name, path string) {
		text, err := readTemplate(path)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		bad.add(err)
		found[name] = text
		paths = append(paths, path)
	}
	read(defaultTemplate, filepath.Join(dir, "chat_template.jinja"))
	folder := filepath.Join(dir, "additional_chat_templates")
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		bad.add(err)
	}
	for _, e := range entries {
		name, isTemplate := strings.CutSuffix(e.Name(), ".jinja")
		if !isTemplate {
			continue
		}
		if len(found) == maxTemplates {
			bad.add(fmt.Errorf("%s: more than %d templates", folder, maxTemplates))
			break
		}
		read(name, filepath.Join(folder, e.Name()))
	}
	if len(found) > 0 {
		s.templates = found
	}
	old, err := s.readOldTemplate(filepath.Join(dir, "chat_template.json"))
	bad.add(err)
	return append(paths, old...), bad.err()
}

func readTemplate(path string) (string, error) {
	text, err := readUpTo(path, maxTemplate)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(text) {
		return "", fmt.Errorf("%s: not UTF-8", path)
	}
	return string(text), nil
}

// readOldTemplate reads chat_template.json, {"chat_template": ...}, of older checkpoints. It counts where nothing else
// brings a template.
func (s *settings) readOldTemplate(path string) ([]string, error) {
	data, err := readUpTo(path, 2*maxTemplate)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d, err := newDocument(path, data)
	if err != nil {
		return nil, err
	}
	var old settings
	err = d.object("chat_template.json", func(key string) error {
		if key == "chat_template" {
			return old.readConfigTemplates(d)
		}
		d.raw()
		return nil
	})
	if len(s.templates) == 0 {
		s.templates = old.templates
	}
	return []string{path}, err
}

// readConfigTemplates reads the value of "chat_template": the text of one, or a list of {"name", "template"}.
func (s *settings) readConfigTemplates(d *document) error {
	const key = "chat_template"
	s.templates = make(map[string]string)
	switch d.peek() {
	case 'n': // null
		d.raw()
		return nil
	case '"':
		return s.addTemplate(d, defaultTemplate, d.text(d.raw()))
	case '[':
		return d.array(key, func(i int) error {
			var t struct{ Name, Template *string }
			path := fmt.Sprintf("%s[%d]", key, i)
			if err := d.value(path, &t); err != nil {
				return err
			}
			if t.Name == nil || t.Template == nil {
				return d.errorf("%s: want a name and a template", path)
			}
			return s.addTemplate(d, *t.Name, *t.Template)
		})
	}
	return d.errorf("%s: want a template or a list of templates, got %s", key, brief(d.raw()))
}

func (s *settings) addTemplate(d *document, name, text string) error {
	if len(text) > maxTemplate {
		return d.errorf("chat template %.40q: %d bytes, at most %d are plausible", name, len(text), maxTemplate)
	}
	if s.templates[name] = text; len(s.templates) > maxTemplates {
		return d.errorf("more than %d chat templates", maxTemplates)
	}
	return nil
}
