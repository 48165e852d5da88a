package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// settings is what the files beside a tokenizer's own say about its tokens.
type settings struct {
	bos, eos     string // "" for none
	named        []namedToken
	added        []addedFile
	addedFile    string
	legacy       bool  // added is from added_tokens.json: tokenizer.json rules
	bosID, eosID int32 // of generation_config.json or config.json
	split        bool  // split_special_tokens
	alone        bool  // neither of these is read
	switches     map[string]json.RawMessage
	templates    map[string]string // chat templates by name
}

// namedToken is a special token with the setting that names it, "" for one in a list.
type namedToken struct {
	role  string
	token addedToken
}

// Option changes what Load reads.
type Option func(*settings)

// TokenizerFilesOnly leaves config.json and generation_config.json alone, which are the model's: what is wrong with them
// does not matter then, and neither BOS nor EOS come from them.
func TokenizerFilesOnly() Option { return func(s *settings) { s.alone = true } }

// Load reads a tokenizer. path is a directory or a file, whose form is told by its content:
//
//   - tokenizer.json, Hugging Face's;
//   - tokenizer.model, SentencePiece's (BPE) or tiktoken's (LLaMA 3);
//   - a .gguf file with its own vocabulary.
//
// Of a directory the first of tokenizer.json, tokenizer.model and its only .gguf file is read. A file that is named
// tokenizer.json or tokenizer.model is read with its neighbours, where they are there: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, generation_config.json, config.json and the chat templates; any other is
// read alone. Errors name the file, the place in it, and every problem found.
func Load(path string, options ...Option) (*Tokenizer, error) {
	o := settings{bosID: none, eosID: none}
	for _, option := range options {
		option(&o)
	}
	t, err := load(path, o)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return t, nil
}

func load(path string, o settings) (*Tokenizer, error) {
	path, err := locate(path)
	if err != nil {
		return nil, err
	}
	var read []string
	dir, name := filepath.Split(path)
	beside := name == "tokenizer.json" || name == "tokenizer.model"
	if beside {
		if read, err = o.read(dir, name); err != nil {
			return nil, err
		}
	}
	b := &builder{settings: o}
	if b.vocabulary, b.bad, err = readVocabulary(path, &o); err != nil {
		return nil, err
	}
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.files = append([]string{path}, read...)
	return t, nil
}

// companions are the tokenizer's other files. They are not read, but belong to it.
var companions = []string{"tokenizer.model"}

// read reads the files beside name in dir that there are and returns their paths, without those that are the model's.
func (s *settings) read(dir, name string) ([]string, error) {
	var paths []string
	var bad problems
	each := func(name string, read func(*document) error) bool {
		path := filepath.Join(dir, name)
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		var d *document
		if err == nil {
			d, err = newDocument(path, data)
		}
		if err == nil {
			err = read(d)
		}
		bad.add(err)
		paths = append(paths, path)
		return true
	}
	each("tokenizer_config.json", s.readTokenizerConfig)
	if s.addedFile == "" { // files from before added_tokens_decoder
		each("special_tokens_map.json", s.readSpecialTokens)
		each("added_tokens.json", s.readAddedTokens)
	} else if path := filepath.Join(dir, "special_tokens_map.json"); exists(path) {
		paths = append(paths, path)
	}
	if !s.alone {
		for _, name := range []string{"generation_config.json", "config.json"} {
			if each(name, s.readConfig) {
				paths = paths[:len(paths)-1]
			}
		}
	}
	for _, other := range companions {
		if path := filepath.Join(dir, other); other != name && exists(path) {
			paths = append(paths, path)
		}
	}
	templates, err := s.readTemplates(dir)
	bad.add(err)
	s.sortNamed()
	return append(paths, templates...), bad.err()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// roles are the named special tokens in the order in which Transformers adds those that are missing.
var roles = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

func (s *settings) readTokenizerConfig(d *document) error {
	return d.object("tokenizer_config", func(key string) error {
		switch key {
		case "added_tokens_decoder":
			s.addedFile = d.file
			return s.readAddedDecoder(d)
		case "split_special_tokens":
			return d.value(key, &s.split)
		case "chat_template":
			return s.readConfigTemplates(d)
		case "legacy", "add_prefix_space", "add_bos_token", "add_eos_token":
			if s.switches == nil {
				s.switches = make(map[string]json.RawMessage)
			}
			s.switches[key] = d.raw()
			return nil
		}
		return s.readNamed(d, key)
	})
}

func (s *settings) readSpecialTokens(d *document) error {
	return d.object("special_tokens_map", func(key string) error { return s.readNamed(d, key) })
}

// readNamed reads the value of key and notes the special tokens that it names, if that is what it does.
func (s *settings) readNamed(d *document, key string) error {
	if key == "additional_special_tokens" || key == "extra_special_tokens" {
		return s.readExtra(d, key)
	}
	raw := d.raw()
	switch {
	case absent(raw) || !strings.HasSuffix(key, "_token"):
		return nil
	case raw[0] == '"' || raw[0] == '{':
		return s.readToken(d, key, key, raw)
	case slices.Contains(roles, key):
		return d.errorf("%s: want a token as a string or an object, got %s", key, brief(raw))
	}
	return nil
}

// readExtra reads special tokens without a role of their own: a list, or an object whose values they are.
func (s *settings) readExtra(d *document, key string) error {
	switch d.peek() {
	case '{':
		return d.object(key, func(role string) error { return s.readToken(d, key, role, d.raw()) })
	case '[':
		return d.array(key, func(int) error { return s.readToken(d, key, "", d.raw()) })
	}
	d.raw()
	return nil
}

// readToken notes a special token that is given as a string or as {"content": ...}.
func (s *settings) readToken(d *document, key, role string, raw json.RawMessage) error {
	a := addedFile{Special: true}
	if isString(raw) {
		a.Content = d.text(raw)
	} else {
		a.Special = false
		if err := json.Unmarshal(raw, &a); err != nil {
			return d.errorf("%s: %w", key, err)
		}
	}
	s.name(role, a.token())
	return nil
}

// name notes a special token. The token of a role replaces the one before it.
func (s *settings) name(role string, t addedToken) {
	if t.Content == "" {
		return
	}
	switch role {
	case "bos_token":
		s.bos = t.Content
	case "eos_token":
		s.eos = t.Content
	}
	for i := range s.named {
		if role != "" && s.named[i].role == role {
			s.named[i].token = t
			return
		}
	}
	s.named = append(s.named, namedToken{role, t})
}

// sortNamed puts the roles in Transformers' order, then other settings, then the lists.
func (s *settings) sortNamed() {
	rank := func(n namedToken) int {
		if i := slices.Index(roles, n.role); i >= 0 {
			return i
		}
		if n.role != "" {
			return len(roles)
		}
		return len(roles) + 1
	}
	slices.SortStableFunc(s.named, func(a, b namedToken) int { return rank(a) - rank(b) })
}

// readAddedDecoder reads {"id": {"content": ...}}.
func (s *settings) readAddedDecoder(d *document) error {
	return d.object("added_tokens_decoder", func(key string) error {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil {
			return d.errorf("added_tokens_decoder: %.40q is not an id", key)
		}
		a := addedFile{}
		if err := d.value("added_tokens_decoder", &a); err != nil {
			return err
		}
		a.ID = &id
		s.added = append(s.added, a)
		return nil
	})
}

// readAddedTokens reads added_tokens.json, {"content": id}. Tokens that have a role are special.
func (s *settings) readAddedTokens(d *document) error {
	s.addedFile, s.legacy = d.file, true
	return d.object("added_tokens", func(content string) error {
		var id int64
		if err := d.value("added_tokens", &id); err != nil {
			return err
		}
		special := slices.ContainsFunc(s.named, func(n namedToken) bool { return n.token.Content == content })
		s.added = append(s.added, addedFile{ID: &id, Content: content, Special: special})
		return nil
	})
}

// readConfig reads bos_token_id and eos_token_id of config.json or generation_config.json: a number, or a list whose
// first is meant. The file that is read first rules.
func (s *settings) readConfig(d *document) error {
	return d.object("config", func(key string) error {
		raw := d.raw()
		dst := map[string]*int32{"bos_token_id": &s.bosID, "eos_token_id": &s.eosID}[key]
		if dst == nil {
			return nil
		}
		id, err := firstID(d, key, raw)
		if *dst == none {
			*dst = id
		}
		return err
	})
}

func firstID(d *document, key string, raw json.RawMessage) (int32, error) {
	if absent(raw) {
		return none, nil
	}
	var ids []int32
	if raw[0] != '[' {
		ids = make([]int32, 1)
		if err := json.Unmarshal(raw, &ids[0]); err != nil {
			return none, d.errorf("%s: %w", key, err)
		}
	} else if err := json.Unmarshal(raw, &ids); err != nil {
		return none, d.errorf("%s: %w", key, err)
	}
	if len(ids) == 0 {
		return none, nil
	}
	return ids[0], nil
}
