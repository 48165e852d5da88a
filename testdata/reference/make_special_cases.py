"""Writes testdata/tokenizer/special.json: what Transformers puts around a text with add_special_tokens=True, for every
place that can say it.

    python make_special_cases.py

Needs transformers. The tests read the file and need none of it.
"""

import json
import os
import tempfile

from transformers import AutoTokenizer

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tokenizer", "special.json")
TEXTS = ["", "ab", "<s>ab", " a<s>b</s>", "[X]"]


def special(id, content):
    return dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


SPECIALS = [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>"), special(9, "[X]")]
TOKEN = {"<s>": 1, "</s>": 2, "[X]": 9}


def template(*single, ids=None):
    items = [{"Sequence": {"id": "A", "type_id": 0}} if s == "A" else {"SpecialToken": {"id": s, "type_id": 0}} for s in single]
    used = {s: {"id": s, "ids": (ids or {}).get(s, [TOKEN[s]]), "tokens": [s] * len((ids or {}).get(s, [0]))} for s in single if s != "A"}
    return {"type": "TemplateProcessing", "single": items, "pair": items + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": used}


def sequence(*parts):
    return {"type": "Sequence", "processors": list(parts)}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": False}
BERT = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["[X]", 9]}
NAMED = {"bos_token": "<s>", "eos_token": "</s>"}

# name: (post_processor, tokenizer_config)
CASES = {
    "nothing": (None, NAMED),
    "template": (template("<s>", "A"), NAMED),
    "template with an end": (template("<s>", "A", "</s>"), NAMED),
    "template with an end only": (template("A", "</s>"), {}),
    "template with several": (template("[X]", "<s>", "A", "</s>", "[X]"), NAMED),
    "template with several ids": (template("<s>", "A", ids={"<s>": [1, 9, 1]}), {}),
    "template, not named": (template("<s>", "A"), {}),
    "Sequence": (sequence(BYTE_LEVEL, template("<s>", "A")), NAMED),
    "ByteLevel": (BYTE_LEVEL, NAMED),
    "Roberta": (ROBERTA, NAMED),
    "Bert": (BERT, NAMED),
    "settings add both": (None, {**NAMED, "add_bos_token": True, "add_eos_token": True}),
    "settings add the end, say nothing of the beginning": (template("<s>", "A"), {**NAMED, "add_eos_token": True}),
    "settings add the beginning, say nothing of the end": (template("<s>", "A", "</s>"), {**NAMED, "add_bos_token": True}),
    "settings forbid": (template("<s>", "A", "</s>"), {**NAMED, "add_bos_token": False, "add_eos_token": False}),
    "settings are null": (template("<s>", "A", "</s>"), {**NAMED, "add_bos_token": None}),
    "settings add what has no name": (template("[X]", "A"), {"add_bos_token": True, "add_eos_token": True}),
    "settings name another": (template("<s>", "A"), {"bos_token": "[X]", "eos_token": "</s>", "add_bos_token": True}),
    "another is named": (template("<s>", "A"), {"bos_token": "[X]"}),
    "of class LlamaTokenizer": (template("<s>", "A"), {**NAMED, "tokenizer_class": "LlamaTokenizerFast"}),
    "of class LlamaTokenizer, settings": (None, {**NAMED, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}),
}


def tokenizer_json(post_processor):
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5, "▁": 6, "▁ab": 7, "▁a": 8}
    return dict(
        version="1.0", truncation=None, padding=None, added_tokens=SPECIALS, normalizer=None,
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        post_processor=post_processor, decoder=None,
        model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None,
                   fuse_unk=True, byte_fallback=False, ignore_merges=False, vocab=vocab,
                   merges=[["a", "b"], ["▁", "ab"], ["▁", "a"]]))


def main():
    out = []
    for name, (processor, config) in CASES.items():
        files = {"tokenizer.json": tokenizer_json(processor),
                 "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **config}}
        with tempfile.TemporaryDirectory() as d:
            for file, value in files.items():
                with open(os.path.join(d, file), "w") as f:
                    json.dump(value, f)
            t = AutoTokenizer.from_pretrained(d)
            encode = [dict(text=x, ids=t(x, add_special_tokens=True)["input_ids"]) for x in TEXTS]
        out.append(dict(name=name, files=files, encode=encode))
    with open(OUT, "w") as f:
        json.dump(out, f, ensure_ascii=False)
        f.write("\n")


if __name__ == "__main__":
    main()
