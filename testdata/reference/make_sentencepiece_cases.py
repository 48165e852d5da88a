"""Writes sentencepiece.jsonl, tiktoken.* and *.gguf of testdata/tokenizer: small vocabularies of our own in these forms, and what
SentencePiece, tiktoken and Transformers make of difficult strings with them.

    python make_sentencepiece_cases.py

Needs sentencepiece, tiktoken, gguf, tokenizers, transformers and what make_tokenizer_cases.py has written. The tests read
the files and need none of these.
"""

import base64
import io
import json
import os
import random
import types

import gguf
import numpy as np
import sentencepiece as spm
import tiktoken
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer
from transformers.convert_slow_tokenizer import LlamaConverter, TikTokenConverter

from make_tokenizer_cases import ALL_NEW, HARD, LLAMA3, OUT, TEXT, decoded, random_strings

RULES = [  # what is replaced, by what: our own, with several characters on either side and an empty result
    ("ﬁ", "fi"), ("½", "1/2"), ("\u00a0", " "), ("\t", " "), ("\u3000", " "), ("\u00ad", ""), ("\u200b", ""), ("…", "..."),
    ("e\u0301", "é"), ("è", "e"), ("A", "a"), ("AB", "(ab)"), ("ABC", " abc "), ("Ω", "\u0020ohm"), ("好", "▁"),
]


def train(**options):
    model = io.BytesIO()
    given = dict(
        model_type="bpe", normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0,
        num_threads=1, minloglevel=2, byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True)
    given.update(options)
    lines = [line for line in TEXT.split("\n") if line] + ["    indented  code        here"]
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **given)
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    return proto


def models():
    """Name -> model and tokenizer_config.json."""
    rules = os.path.join(OUT, "rules.tsv")
    with open(rules, "w", encoding="utf-8") as f:
        for a, b in RULES:
            f.write(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n")
    table = {
        "llama": (train(vocab_size=560), {}),
        "unknown": (train(vocab_size=300, byte_fallback=False, character_coverage=0.98), {}),
        "rules": (train(vocab_size=520, normalization_rule_name="", normalization_rule_tsv=rules,
                        remove_extra_whitespaces=True), {}),
        "rules kept spaces": (train(vocab_size=280, byte_fallback=False, normalization_rule_name="",
                                    normalization_rule_tsv=rules), {}),
        "squeeze": (train(vocab_size=300, byte_fallback=False, remove_extra_whitespaces=True), {}),
        "no prefix": (train(vocab_size=520, add_dummy_prefix=False), {}),
        "suffix": (train(vocab_size=520, treat_whitespace_as_suffix=True), {}),
        "suffix squeeze": (train(vocab_size=520, treat_whitespace_as_suffix=True, remove_extra_whitespaces=True), {}),
        "symbols": (train(vocab_size=540, user_defined_symbols=["dose", "low dose", "<|a|>", "[R]"],
                          control_symbols=["[L]", "<|a|>b"], pad_id=3, unk_piece="[UNK]", bos_piece="[BOS]", eos_id=-1), {}),
        "moved ids": (train(vocab_size=520, unk_id=5, bos_id=0, eos_id=1, pad_id=2), {}),
        "not legacy": (train(vocab_size=560), {"legacy": False}),
        "not legacy, no prefix": (train(vocab_size=560), {"legacy": False, "add_prefix_space": False}),
        "no prefix by config": (train(vocab_size=560), {"add_prefix_space": False}),
    }
    os.remove(rules)
    plain = train(vocab_size=520)
    for p in plain.pieces:
        p.piece = p.piece.replace("▁", " ")
    plain.normalizer_spec.escape_whitespaces = False
    table["not escaped"] = (plain, {})
    return table


def converted(proto, config):
    """What Transformers 4 makes of the model for LLaMA."""
    path = os.path.join(OUT, "model.tmp")
    with open(path, "wb") as f:
        f.write(proto.SerializeToString())
    slow = types.SimpleNamespace(
        vocab_file=path, legacy=config.get("legacy", True),
        add_prefix_space=config.get("add_prefix_space", proto.normalizer_spec.add_dummy_prefix),
        convert_ids_to_tokens=lambda i: proto.pieces[i].piece, all_special_tokens=[], special_tokens=[])
    scores = [(p.piece, p.score) for p in proto.pieces]

    class Extractor:  # merges in the order in which LLaMA's own tokenizer.json has them
        def __init__(self, _):
            pass

        def extract(self, *_):
            vocab = {s: i for i, (s, _) in enumerate(scores)}
            merges = []
            for s, score in scores:
                cut = [(s[:i], s[i:]) for i in range(1, len(s))]
                merges += [(-score, vocab[a], vocab[b], a, b) for a, b in cut if a in vocab and b in vocab]
            return vocab, [m[3:] for m in sorted(merges)]

    LlamaConverter.SpmExtractor = Extractor
    c = LlamaConverter(slow)
    c.special_tokens = {proto.trainer_spec.unk_piece}
    t = c.converted()
    os.remove(path)
    t.add_special_tokens([AddedToken(proto.trainer_spec.unk_piece, normalized=False, special=True)])
    return t


def special_texts(proto):
    return [p.piece for p in proto.pieces if p.type in (2, 3, 4)]


def sp_cases():
    texts = HARD + [ALL_NEW] + random_strings(30) + [
        "ABC", "AB", "ABCD A", "xﬁ½", " \u3000 a \t b\u00a0", "é e\u0301", "Ω", "好 好", "a…b", "\u00ad", "[UNK]", "a[UNK]b", "[BOS]",
        "<pad>", "dose [R]  x <|a|>b"]
    texts = list(dict.fromkeys(texts))
    for name, (proto, config) in models().items():
        data = proto.SerializeToString()
        sp = spm.SentencePieceProcessor(model_proto=data)
        t = converted(proto, config)
        spec, kinds = proto.normalizer_spec, special_texts(proto)
        as_llama = (not spec.precompiled_charsmap and not spec.remove_extra_whitespaces and spec.escape_whitespaces
                    and not proto.trainer_spec.treat_whitespace_as_suffix)
        cases = []
        for text in texts:
            special = any(s in text for s in kinds)
            if as_llama:
                ids = t.encode(text, add_special_tokens=False).ids
                if not special and not config:  # both agree
                    assert ids == sp.encode(text), (name, text, ids, sp.encode(text))
            elif special:
                continue
            else:
                ids = sp.encode(text)
            case = dict(text=text, ids=ids)
            case.update(decoded(t, ids, text))
            cases.append(case)
        rng = random.Random(7)
        for _ in range(15):
            ids = [rng.randrange(len(proto.pieces)) for _ in range(rng.randint(0, 9))]
            cases.append(dict(ids=ids, **decoded(t, ids, None)))
        yield dict(name=name, model=base64.b64encode(data).decode(), config=config, unk=sp.unk_id(), bos=sp.bos_id(),
                   eos=sp.eos_id(), pad=sp.pad_id(), size=len(proto.pieces), cases=cases), proto


def write_lines(name, rows):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def byte_level():
    """The vocabulary of llama3.json without its special tokens, as bytes and ranks."""
    with open(os.path.join(OUT, "llama3.json"), encoding="utf-8") as f:
        file = json.load(f)
    shown = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    spelling = {b: chr(b) for b in shown}
    spelling.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in shown)})
    back = {c: b for b, c in spelling.items()}
    vocab = {bytes(back[c] for c in s): i for s, i in file["model"]["vocab"].items()}
    return file, vocab


def tiktoken_cases():
    file, ranks = byte_level()
    path = os.path.join(OUT, "tiktoken.model")
    with open(path, "wb") as f:
        for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
            f.write(base64.b64encode(token) + b" " + str(rank).encode() + b"\n")
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>"]
    places = {"<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|start_header_id|>": 6, "<|eot_id|>": 9}
    special = {s: len(ranks) + places[s] for s in names}
    t = tiktoken.Encoding("ours", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=special)
    TikTokenConverter.load_tiktoken_bpe = staticmethod(lambda _: ranks)
    h = TikTokenConverter(vocab_file=path).converted()
    for text in HARD + random_strings(60):
        ids = t.encode(text, allowed_special="all")
        if not any(s in text for s in names):
            assert h.encode(text, add_special_tokens=False).ids == ids, text
        plain = t.encode(text, disallowed_special=())
        row = dict(text=text, ids=ids)
        if plain != ids:
            row["plain"] = plain
        yield row
    rng = random.Random(5)
    for _ in range(40):  # not UTF-8: such bytes make one word
        raw = bytes(rng.randrange(0x80, 0xC0) for _ in range(rng.randint(1, 6)))
        yield dict(bytes=base64.b64encode(raw).decode(), ids=t._encode_single_piece(raw))


def write_gguf(name, arch, add):
    path = os.path.join(OUT, name)
    w = gguf.GGUFWriter(path, arch)
    add(w)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def gguf_files(proto):
    def scored(w):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list([p.piece.encode() for p in proto.pieces])
        w.add_token_scores([p.score for p in proto.pieces])
        w.add_token_types([int(p.type) for p in proto.pieces])
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_chat_template([{"name": "default", "template": "{{ bos_token }}"}, {"name": "tool_use", "template": "{{ tools }}"}])

    def levelled(w):
        file, _ = byte_level()
        tokens = sorted(file["model"]["vocab"], key=file["model"]["vocab"].get)
        types_ = [1] * len(tokens)
        for a in file["added_tokens"]:
            tokens.append(a["content"])
            types_.append(3 if a["special"] else 4)
        tokens.append("[PAD427]")
        types_.append(5)
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("llama-bpe")
        w.add_token_list(tokens)
        w.add_token_types(types_)
        w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in file["model"]["merges"]])
        w.add_bos_token_id(next(a["id"] for a in file["added_tokens"] if a["content"] == "<|begin_of_text|>"))
        w.add_eos_token_id(next(a["id"] for a in file["added_tokens"] if a["content"] == "<|end_of_text|>"))
        w.add_chat_template("{{ bos_token }}")

    write_gguf("scored.gguf", "llama", scored)
    write_gguf("levelled.gguf", "llama", levelled)


def main():
    rows = []
    for row, proto in sp_cases():
        rows.append(row)
        if row["name"] == "llama":
            gguf_files(proto)
    write_lines("sentencepiece.jsonl", rows)
    write_lines("tiktoken.jsonl", tiktoken_cases())


if __name__ == "__main__":
    main()
