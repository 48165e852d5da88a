package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// tiktokenOthers are the vocabularies in tiktoken's format whose words are cut by another expression than LLaMA 3's,
// by their number of tokens.
var tiktokenOthers = map[int]string{
	50256: "GPT-2's r50k", 100256: "OpenAI's cl100k", 199998: "OpenAI's o200k", 200000: "LLaMA 4's", 151643: "Qwen's",
	163584: "Kimi's",
}

const llama3Tokens = 128000

// parseTiktoken reads a vocabulary in tiktoken's format: a line for each token, its bytes in base64 and its rank. The
// file has nothing else, so that the rest is LLaMA 3's: its expression for words, and its 256 special tokens after the
// others.
func parseTiktoken(path string, data []byte, s *settings) (*vocabulary, error) {
	tokens, err := readRanks(path, data)
	if err != nil {
		return nil, err
	}
	if name := tiktokenOthers[len(tokens)]; name != "" {
		return nil, fmt.Errorf("%s: %d tokens: this is %s vocabulary, whose expression for words the file does not have; "+
			"only LLaMA 3's is known (a tokenizer.json would do)", path, len(tokens), name)
	}
	v := newVocabulary(path, formatTiktoken)
	if len(tokens) != llama3Tokens {
		v.warn("%s: %d tokens, LLaMA 3 has %d; its expression for words and its special tokens are taken nevertheless",
			path, len(tokens), llama3Tokens)
	}
	v.setPieces(spellBytes(tokens))
	v.model.ignoreMerges = true
	if err := v.deriveMerges(func(int32) bool { return true }, cmp.Compare[int32]); err != nil {
		return nil, err
	}
	v.noteUnmade()
	v.setByteLevel(scanLlama3)
	for i, name := range llama3Specials() {
		v.defaults = append(v.defaults, addedToken{ID: int32(len(tokens) + i), Content: name, Special: true})
	}
	v.weak = [2]string{llama3BOS, "<|end_of_text|>"}
	addBOS, addEOS := true, false
	if err := errors.Join(s.flag("add_bos_token", &addBOS), s.flag("add_eos_token", &addEOS)); err != nil {
		return nil, err
	}
	if v.noBOS = !addBOS; addBOS {
		v.frame.before = []int32{int32(len(tokens))}
	}
	if addEOS {
		v.frame.after = []int32{int32(len(tokens) + 1)}
	}
	return v, nil
}

// readRanks returns the tokens by rank. Every rank from 0 on and every byte has one.
func readRanks(path string, data []byte) ([]string, error) {
	d := &document{file: path, data: data}
	ranks := make(map[string]int) // by token
	var bad problems
	for at := 0; at < len(data); {
		line, _, _ := bytes.Cut(data[at:], []byte("\n"))
		from := at
		at += len(line) + 1
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			continue
		}
		if len(ranks) == maxTokens {
			return nil, d.errorAt(from, "more than %d tokens", maxTokens)
		}
		token, rank, err := readRank(line)
		switch first, twice := ranks[token]; {
		case err != nil:
			if bad.add(d.errorAt(from, "%w", err)); bad.full() {
				return nil, errors.Join(bad.err(), fmt.Errorf("%s: the rest was not read", path))
			}
		case twice:
			d.problem(&bad, from, "token %.40q stands twice, with ranks %d and %d", token, first, rank)
		default:
			ranks[token] = rank
		}
	}
	tokens := make([]string, len(ranks))
	for token, rank := range ranks {
		if rank >= len(tokens) {
			bad.add(fmt.Errorf("%s: token %.40q has rank %d, but there are only %d tokens", path, token, rank, len(tokens)))
		} else if other := tokens[rank]; other != "" {
			bad.add(fmt.Errorf("%s: rank %d belongs to %.40q and to %.40q", path, rank, min(token, other), max(token, other)))
		} else {
			tokens[rank] = token
		}
	}
	for b := range 256 {
		if _, ok := ranks[string([]byte{byte(b)})]; !ok {
			bad.add(fmt.Errorf("%s: no token is the byte 0x%02X", path, b))
		}
	}
	return tokens, bad.err()
}

func readRank(line []byte) (token string, rank int, err error) {
	text, number, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return "", 0, fmt.Errorf("want a token and its rank, got %.40q", line)
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(raw, text)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("want a token in base64, got %.40q", text)
	}
	rank, err = strconv.Atoi(string(number))
	if err != nil || number[0] == '+' || rank < 0 {
		return "", 0, fmt.Errorf("want a rank, got %.40q", number)
	}
	return string(raw[:n]), rank, nil
}

// noteUnmade warns of tokens of several bytes that no merge makes.
func (v *vocabulary) noteUnmade() {
	made := make([]bool, len(v.used))
	for _, id := range v.model.results {
		made[id] = true
	}
	count, first := 0, ""
	for id, p := range v.model.pieces {
		if made[id] || utf8.RuneCountInString(p) == 1 {
			continue
		}
		if count++; count == 1 {
			first = p
		}
	}
	if count > 0 {
		v.warn("%s: %d tokens, the first of them %.40q, are no two others joined: they are found as whole words only",
			v.file, count, first)
	}
}

// setByteLevel makes the steps around a byte-level model.
func (v *vocabulary) setByteLevel(words ...scanner) {
	var steps preTokenizers
	for _, w := range words {
		steps = append(steps, split{pattern: w})
	}
	v.words = append(steps, byteLevel{})
	v.decoders = []decoderSpec{{
		start: func(n decodeStep) decodeStep { return &byteLevelText{next: n} }, parts: true, whole: true,
	}}
}

const llama3BOS = "<|begin_of_text|>"

// llama3Specials are the special tokens of LLaMA 3 as its newest releases name them. LLaMA 3 itself had other names for
// some that are reserved here; a tokenizer_config.json beside the vocabulary says them.
func llama3Specials() []string {
	names := []string{
		llama3BOS, "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
		"<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
		"<|python_tag|>", "<|image|>",
	}
	for i := 2; len(names) < 256; i++ {
		names = append(names, fmt.Sprintf("<|reserved_special_token_%d|>", i))
	}
	return names
}
