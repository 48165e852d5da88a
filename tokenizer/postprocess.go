package tokenizer

import (
	"encoding/json"
	"fmt"
	"slices"
)

// frame is what a post-processor puts around the ids of a sequence.
type frame struct{ before, after []int32 }

// maxFrame is the number of ids on one side of a sequence; two are more than any tokenizer has.
const maxFrame = 64

// check refuses a frame out of proportion: a few bytes of the file can name many ids many times.
func (f frame) check(path string) (frame, error) {
	if n := max(len(f.before), len(f.after)); n > maxFrame {
		return frame{}, fmt.Errorf("%s: it puts %d tokens on one side of a text, at most %d are read", path, n, maxFrame)
	}
	return f, nil
}

// ends returns the first and the last id of all, none where there is none.
func (f frame) ends() (bos, eos int32) {
	bos, eos = none, none
	if len(f.before) > 0 {
		bos = f.before[0]
	}
	if n := len(f.after); n > 0 {
		eos = f.after[n-1]
	}
	return bos, eos
}

// known leaves out ids that name no token.
func (b *builder) known(t *Tokenizer, ids []int32) []int32 {
	return slices.DeleteFunc(ids, func(id int32) bool {
		_, ok := t.Token(id)
		if !ok {
			b.warn("post_processor: id %d names no token", id)
		}
		return !ok
	})
}

// readPostProcessor returns the ids that a post_processor puts around a sequence.
func readPostProcessor(raw json.RawMessage, path string, depth int) (frame, error) {
	if absent(raw) {
		return frame{}, nil
	}
	kind, err := kindOf(raw, path)
	if err != nil {
		return frame{}, err
	}
	switch kind {
	case "Sequence":
		return readPostProcessors(raw, path, depth)
	case "TemplateProcessing":
		return readTemplateProcessing(raw, path)
	case "RobertaProcessing", "BertProcessing":
		return readClsSep(raw, path)
	case "ByteLevel":
		return frame{}, nil
	}
	return frame{}, fmt.Errorf("%s: type %.40q is not known", path, kind)
}

// readPostProcessors reads a Sequence: a later part puts its tokens outside those of an earlier one.
func readPostProcessors(raw json.RawMessage, path string, depth int) (f frame, err error) {
	list, err := sequence(raw, path, "processors", depth, readPostProcessor)
	if err != nil {
		return f, err
	}
	for _, p := range list {
		f = frame{slices.Concat(p.before, f.before), slices.Concat(f.after, p.after)}
		if f, err = f.check(path); err != nil {
			return f, err
		}
	}
	return f, nil
}

// readTemplateProcessing reads a template for one sequence: special tokens around the text, which is called A.
func readTemplateProcessing(raw json.RawMessage, path string) (f frame, err error) {
	var p struct {
		Single []struct {
			SpecialToken *struct {
				ID string `json:"id"`
			}
		} `json:"single"`
		SpecialTokens map[string]struct {
			IDs []int32 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return f, err
	}
	at, texts := &f.before, 0
	for _, item := range p.Single {
		if item.SpecialToken == nil {
			at = &f.after
			texts++
			continue
		}
		*at = append(*at, p.SpecialTokens[item.SpecialToken.ID].IDs...)
		if f, err = f.check(path); err != nil {
			return f, err
		}
	}
	if texts != 1 {
		return frame{}, fmt.Errorf("%s.single: the text stands in it %d times; expected once", path, texts)
	}
	return f, nil
}

// readClsSep reads {"cls": ["<s>", 0], "sep": ["</s>", 2]}.
func readClsSep(raw json.RawMessage, path string) (f frame, err error) {
	var p struct {
		Cls []json.RawMessage `json:"cls"`
		Sep []json.RawMessage `json:"sep"`
	}
	if err := readPart(raw, path, &p); err != nil {
		return f, err
	}
	if len(p.Cls) != 2 || len(p.Sep) != 2 {
		return f, fmt.Errorf("%s: want cls and sep as a token and its id", path)
	}
	var cls, sep int32
	if err := readPart(p.Cls[1], path+".cls", &cls); err != nil {
		return f, err
	}
	if err := readPart(p.Sep[1], path+".sep", &sep); err != nil {
		return f, err
	}
	return frame{[]int32{cls}, []int32{sep}}, nil
}
