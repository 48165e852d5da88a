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

// settings is what the files beside tokenizer.json say about its tokens.
type settings struct {
	bos, eos     string // "" for none
	named        []namedToken
	added        []addedFile
	addedFile    string
	legacy       bool  // added is from added_tokens.json: tokenizer.json rules
	bosID, eosID int32 // of config.json
	split        bool  // split_special_tokens
	alone        bool  // config.json is not read
}

// namedToken is a special token with the setting that names it, "" for one in a list.
type namedToken struct {
	role  string
	token addedToken
}

// Option changes what Load reads.
type Option func(*settings)

// TokenizerFilesOnly leaves config.json alone, which is the model's: what is wrong with it does not matter then, and
// neither BOS nor EOS come from it.
func TokenizerFilesOnly() Option { return func(s *settings) { s.alone = true } }

// Load reads a tokenizer: a model directory with tokenizer.json and, where they are there, tokenizer_config.json,
// special_tokens_map.json, added_tokens.json and config.json; or the path of such a file, which is read with its
// neighbours if it is named tokenizer.json, else alone. Errors name the file, the place in it, and every problem found.
func Load(path string, options ...Option) (*Tokenizer, error) {
	var o settings
	for _, option := range options {
		option(&o)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	dir, name := path, "tokenizer.json"
	if !info.IsDir() {
		dir, name = filepath.Split(path)
	}
	t, err := load(dir, name, o)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return t, nil
}

func load(dir, name string, o settings) (*Tokenizer, error) {
	path := filepath.Join(dir, name)
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w%s", err, otherFormats(dir))
	}
	if err != nil {
		return nil, err
	}
	f, err := parseFile(path, data)
	if err != nil {
		return nil, err
	}
	b := &builder{file: f, settings: o}
	b.settings.bosID, b.settings.eosID = none, none
	var read []string
	if name == "tokenizer.json" {
		if read, err = b.settings.read(dir); err != nil {
			return nil, err
		}
	}
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.files = append([]string{path}, read...)
	return t, nil
}

// otherFormats says which files that cannot be read here a directory without tokenizer.json has.
func otherFormats(dir string) string {
	var found []string
	for _, name := range []string{"tokenizer.model", "tekken.json", "vocab.json", "merges.txt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			found = append(found, name)
		}
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf(" (there is %s, but only tokenizer.json can be read)", strings.Join(found, ", "))
}

// companions are the tokenizer's other files. They are not read, but belong to it.
var companions = []string{"tokenizer.model", "chat_template.jinja", "chat_template.json"}

// read reads the files of dir that there are and returns their paths, without config.json, which is the model's.
func (s *settings) read(dir string) ([]string, error) {
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
	if !s.alone && each("config.json", s.readConfig) {
		paths = paths[:len(paths)-1]
	}
	for _, name := range companions {
		if path := filepath.Join(dir, name); exists(path) {
			paths = append(paths, path)
		}
	}
	s.sortNamed()
	return paths, bad.err()
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
			return d.errorf("added_tokens_decoder: %q is not an id", key)
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

// readConfig reads bos_token_id and eos_token_id of config.json: a number, or a list whose first is meant.
func (s *settings) readConfig(d *document) error {
	return d.object("config", func(key string) (err error) {
		switch raw := d.raw(); key {
		case "bos_token_id":
			s.bosID, err = firstID(d, key, raw)
		case "eos_token_id":
			s.eosID, err = firstID(d, key, raw)
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
