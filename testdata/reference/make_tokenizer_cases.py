"""Writes testdata/tokenizer: small tokenizers of our own and what Hugging Face makes of difficult strings with them.

    python make_tokenizer_cases.py        # writes ../tokenizer

Needs tokenizers and transformers; versions are written into cases.json. The tests read the files and need neither.
"""

import copy
import json
import os
import random
import tempfile

import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tokenizer")

TEXT = """
The patient received metformin 500 mg twice daily and was followed up for 12.5 weeks (p < 0.05).
Aspirin inhibits cyclooxygenase; it's used for pain, fever and, in low doses, to prevent strokes.
Which gene is mutated in cystic fibrosis? The CFTR gene on chromosome 7 is mutated.
We'll measure the blood pressure: 120/80 mmHg. They've seen it before, and I'm sure you'd agree.
Summarise the abstract in one sentence. The abstract describes a randomised trial of 1,024 adults.
### Instruction:
Name the drug.
### Response:
    if dose > 10:
        return "too high"
Die Ärztin prüft die Größe der Läsion. El niño tiene fiebre. Être à l'hôpital, ça va.
"""

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def added(id, content, **kw):
    token = dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return {**token, **kw}


def learn(pre, size, normalizer=None, alphabet=()):
    """Returns the vocabulary, in order of ids, and the merges that BPE learns from TEXT."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    if normalizer is not None:
        t.normalizer = normalizer
    t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=size, initial_alphabet=list(alphabet), show_progress=False))
    model = json.loads(t.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), model["merges"]


def tokenizer_json(vocab, merges, **parts):
    model = dict(
        type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
        fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab={t: i for i, t in enumerate(vocab)}, merges=merges,
    )
    model.update(parts.pop("model", {}))
    file = dict(version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer=None,
                post_processor=None, decoder=None)
    file.update(parts)
    file["model"] = model
    return file


def template(bos, bos_id, eos=None, eos_id=None):
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}}
    if eos:
        single.append({"SpecialToken": {"id": eos, "type_id": 0}})
        special[eos] = {"id": eos, "ids": [eos_id], "tokens": [eos]}
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special}


SP_NORMALIZER = {"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
SP_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def make_tokenizers():
    files = {}
    pieces, merges = learn(pre_tokenizers.Metaspace(prepend_scheme="always"), 330)
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    vocab = ["<unk>", "<s>", "</s>"] + bytes_ + [p for p in pieces if p != "\n"]
    merges = [m for m in merges if "\n" not in m[0] + m[1]]
    specials = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]

    # LLaMA 1 and 2: byte fallback, the dummy space put in front by a normalizer.
    files["sp"] = tokenizer_json(
        vocab, merges, added_tokens=specials, normalizer=SP_NORMALIZER, decoder=SP_DECODER,
        post_processor=template("<s>", 1), model=dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True))

    # The newer form: Metaspace at the start only; no byte fallback, unknown characters one by one, and added tokens
    # with every property.
    n = len(vocab) - 256
    few = ["<unk>", "<s>", "</s>"] + vocab[259:]
    files["metaspace"] = tokenizer_json(
        few, merges,
        added_tokens=specials + [
            added(n, "[L]", lstrip=True), added(n + 1, "[R]", rstrip=True), added(n + 2, "[B]", lstrip=True, rstrip=True),
            added(n + 3, "dose", single_word=True, special=False), added(n + 4, "low dose", normalized=True, special=False),
            added(n + 5, "Ünï", special=False), added(n + 6, "<|a|>"), added(n + 7, "<|a|>b", special=False),
            added(n + 8, "  ", special=False)],
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        decoder={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        post_processor=template("<s>", 1, "</s>", 2), model=dict(unk_token="<unk>", fuse_unk=False))

    # Metaspace before every part, words cut apart, unknown characters fused, normalised added tokens, no decoder.
    files["words"] = tokenizer_json(
        few, merges,
        added_tokens=[added(0, "<unk>"), added(1, "<s>", normalized=True), added(2, "</s>", normalized=True),
                      added(n, "# #", normalized=True, special=False)],
        normalizer=SP_NORMALIZER,
        pre_tokenizer={"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        model=dict(unk_token="<unk>", fuse_unk=True))

    # LLaMA 3: byte-level, its pattern, whole words first.
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = learn(pre, 420, alphabet=alphabet)
    vocab = pieces + ["Ġwholeword"]  # reached by ignore_merges only
    n = len(vocab)
    files["llama3"] = tokenizer_json(
        vocab, merges,
        added_tokens=[added(n, "<|begin_of_text|>"), added(n + 1, "<|end_of_text|>"), added(n + 2, "<|eot_id|>"),
                      added(n + 3, "<|start_header_id|>"), added(n + 4, "two words", special=False),
                      added(n + 5, "éé", special=False), added(n + 6, "長い", special=False)],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        post_processor={"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            template("<|begin_of_text|>", n)]},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        model=dict(ignore_merges=True))

    # GPT-2: its words, a space in front, digits one by one.
    pre = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pieces, merges = learn(pre, 400, alphabet=alphabet)
    n = len(pieces)
    files["gpt2"] = tokenizer_json(
        pieces, [" ".join(m) for m in merges], added_tokens=[added(n, "<|endoftext|>")],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]},
        post_processor={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True})

    # A pattern without a scanner of its own, NFC, punctuation joined to what precedes it.
    files["regex"] = tokenizer_json(
        pieces, merges, added_tokens=[added(n, "<s>")], normalizer={"type": "NFC"},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious", "invert": False},
            {"type": "Split", "pattern": {"Regex": CASED}, "behavior": "Isolated", "invert": False},
            {"type": "Split", "pattern": {"Regex": "[^\\s,]+"}, "behavior": "MergedWithNext", "invert": True},
            {"type": "Punctuation", "behavior": "Contiguous"},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True})
    return files


HARD = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\r", " \t \n  \r\n ", "a", " a", "a ", "  a  ", "\na", "a\n",
    "Hello world", " Hello world", "hello   world", "hello\n\n   world", "hello \n world", "x  \n\n  y", "a\u00a0b", "\u00a0", "\u3000a",
    "\u2028x", "\u0085", "\u200b", "\ufeffBOM", "\u00ad", "\x00", "\x01\x02\x7f", "a\x00b",
    "it's", "IT'S", "I'll've", "'s", "'S", "'ſ", "we'RE", "'", "''", "'sa", "'reb", "'x", "a'lL", "’s", " 's", "d'd't",
    "1", "12", "123", "1234", "12345678", " 123", "1,024.5", "٣٤٥", "½¾²", "Ⅷ", "一二三", "1a2b3", "0.05)", "12.5 weeks",
    "The patient received metformin 500 mg twice daily.", "wholeword", " wholeword", "a wholeword wholewords",
    "### Instruction:\nName the drug.\n\n### Response:\n", "p<0.05;q>=1", "!!!", "...", "--", "a--b-c", "-", "- -", "a, b,c,, d",
    "(a)[b]{c}<d>", "C:\\x\\y", "http://a.b/c?d=e&f=g#h", "a_b__c", "$5 €6 ¥7 ±8", "%^&*()_+|~`", "x!\n\n", "x!\r\n\r\ny", " !\n", "/\n//\n",
    "Ärztin", "Größe", "niño", "nin\u0303o", "A\u030a", "e\u0301\u0323", "É", "é", "ﬁ", "Å", "ẛ̣", "ǅ", "ŒŸ", "ß", "İi", "ΑΒΓ αβγς",
    "你好世界", "こんにちは", "長い", "한국어", "\u1112\u1161\u11ab", "Привет мир", "مرحبا", "שלום", "नमस्ते", "ไทย", "🙂", "👩‍⚕️", "🇩🇪🇫🇷", "🙂🙂",
    "a🙂b", " 🙂 ", "\U0001f9ec DNA", "𝔘𝔫𝔦", "𠀀", "\U0010ffff", "\ue000", "\ufffd", "\uffff", "é" * 5, "ü ü",
    "▁", "▁▁", "▁a", "a▁b", " ▁ ", "Ġ", "Ġthe", "Ċ", "<0x0A>", "<0x41>b", "<0xZZ>", "<0x0a>",
    "<s>", "</s>", "<unk>", "<s>a", "a<s>", "a<s>b", "a <s> b", "<s> <s>", "<s><s>", "<s", "<s>>", "<<s>", "< s>", "<s>\n</s>", " <s>", "<s> ",
    "<|begin_of_text|>a<|eot_id|>", "<|begin_of_text|><|begin_of_text|>", "<|eot_id|", "<|start_header_id|>user\n\nHi<|eot_id|>\n",
    "<|endoftext|>a", "a<|endoftext|> b", "two words", "two  words", "xtwo wordsx", "長い長い", "caféé", "ééé",
    "[L]", "a [L] b", "a  [L]  b", "[R]  a", "a [R] b", "a \n [B] \t b", "[B][B]", " [B] [B] ", "[L][R] [L]", "[R]   [L]", "[R]  x", "a[R]  [R]",
    "dose", "doses", "a dose.", "overdose", "dose dose", "_dose", "dose1", "dose-dose", "low dose", "a low dose", "low  dose", "slow doses",
    "Ünï", "aÜnïb", "U\u0308n", "<|a|>", "<|a|>b", "<|a|>bc", "<|a|><|a|>b", "# #", "a # # b", "# ##",
]

# One character of each range of letters and numbers that Unicode 15.1 and 16 brought.
NEW = [0x1C89, 0xA7CB, 0xA7DC, 0x105C0, 0x10D4A, 0x10D6F, 0x10EC2, 0x11380, 0x1138B, 0x1138E, 0x11390, 0x113B7, 0x113D1,
       0x113D3, 0x11BC0, 0x13460, 0x16100, 0x16D40, 0x18CFF, 0x1E5D0, 0x1E5F0, 0x2EBF0, 0x2EE5D,
       0x10D40, 0x116D0, 0x11BF0, 0x16130, 0x16D70, 0x1CCF0, 0x1E5F1]
HARD += [f"!{chr(c)}a1 {chr(c)}{chr(c)}" for c in NEW[::3]]
ALL_NEW = " ".join("!" + chr(c) + "a" for c in NEW)


def random_strings(n):
    rng = random.Random(3)
    parts = ["a", "b", " ", " ", "  ", "\n", "\r\n", "\t", "1", "23", "4567", "'", "'s", "'LL", "the", "The", " dose", "-", ",", ".", "!?", "é",
             "e\u0301", "ß", "🙂", "好", "\u00a0", "▁", "<s>", "</s>", "<|eot_id|>", "[L]", "[R]", "[B]", "dose", "low dose", "\u2028", "Ünï",
             "patient", "<", ">", "/", "_", "\x00", "ſ", "٣", "½", "wholeword", "# #", "#", "\u0300", "\u200d"]
    return ["".join(rng.choice(parts) for _ in range(rng.randint(2, 14))) for _ in range(n)]


def without_prefix(file):
    """The same tokenizer, but no dummy space is put in front of anything."""
    file = copy.deepcopy(file)

    def walk(part):
        if isinstance(part, list):
            return [walk(p) for p in part if not (isinstance(p, dict) and p.get("type") == "Prepend")]
        if isinstance(part, dict):
            part = {k: walk(v) for k, v in part.items()}
            if part.get("type") == "ByteLevel":
                part["add_prefix_space"] = False
            if part.get("type") == "Metaspace":
                part["prepend_scheme"] = "never"
        return part

    file["normalizer"], file["pre_tokenizer"] = walk(file["normalizer"]), walk(file["pre_tokenizer"])
    file["added_tokens"] = []  # used for text without added tokens only
    return file


def decoded(t, ids, text):
    """decode is left out where it is the text, decode_special where it is the same as decode."""
    plain, special = (t.decode(ids, skip_special_tokens=skip) for skip in (True, False))
    case = {}
    if plain != text:
        case["decode"] = plain
    if special != plain:
        case["decode_special"] = special
    return case


def decoder_of(file):
    """The tokenizer to decode with. tokenizers 0.23 spells an added token that is looked for in normalised text in its
    normalised form and no longer knows it as special (0.21 does both right), so here no token is normalised."""
    file = copy.deepcopy(file)
    for a in file["added_tokens"]:
        a["normalized"] = False
    return Tokenizer.from_str(json.dumps(file))


def encode_cases(file):
    t = Tokenizer.from_str(json.dumps(file))
    decoder = decoder_of(file)
    bare = Tokenizer.from_str(json.dumps(without_prefix(file)))
    contents = [a["content"] for a in file["added_tokens"]]
    cases = []
    for text in HARD + [ALL_NEW] + random_strings(150):
        t.encode_special_tokens = False
        ids = t.encode(text, add_special_tokens=False).ids
        case = dict(text=text, ids=ids, **decoded(decoder, ids, text))
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        if plain != ids:
            case["plain"] = plain
        # Digits before ByteLevel puts a space before each digit, wherever the text stands.
        digits = '"Digits"' in json.dumps(file) and any(c.isnumeric() or c > "\uffff" for c in text)
        if not digits and not any(c in text for c in contents):
            case["continuation"] = bare.encode(text, add_special_tokens=False).ids
        cases.append(case)
    return cases


def decode_cases(file, n=120):
    """Random ids: broken byte sequences, ids of no token, special tokens between bytes."""
    t = decoder_of(file)
    rng = random.Random(4)
    size = len(t.get_vocab())
    vocab = file["model"]["vocab"]
    high = [i for p, i in vocab.items() if p.startswith("<0x") and int(p[3:5], 16) >= 0x80] or \
           [i for p, i in vocab.items() if len(p) == 1 and ord(p) > 0x7f]
    special = [a["id"] for a in file["added_tokens"]]
    cases = []
    for i in range(n):
        pools = [range(size + 3), high, high, special]
        ids = [rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 9))]
        cases.append(dict(ids=ids, **decoded(t, ids, None)))
    return cases


def directory_cases():
    """What Transformers makes of tokenizer.json together with the files beside it."""
    vocab = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "▁a", "x"]
    specials = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    base = tokenizer_json(vocab, [["a", "b"], ["▁", "a"]], added_tokens=specials, normalizer=SP_NORMALIZER,
                          model=dict(unk_token="<unk>", fuse_unk=True))
    bare = {**base, "added_tokens": []}
    typed = lambda **kw: {"__type": "AddedToken", **{k: v for k, v in added(0, **kw).items() if k not in ("id", "special")}}
    decoder = lambda **kw: {k: v for k, v in added(0, **kw).items() if k != "id"}
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    table = [
        ("plain", base, {}, {}),
        ("named", base, named, {}),
        ("properties", base, {"bos_token": "<s>", "added_tokens_decoder": {
            "1": decoder(content="<s>", lstrip=True, normalized=True)}}, {}),
        ("new token", base, {**named, "added_tokens_decoder": {"9": decoder(content="<new>", special=False)}}, {}),
        ("pad as string", base, {**named, "pad_token": "[PAD]"}, {}),
        ("pad as object", base, {**named, "pad_token": typed(content="[PAD]", lstrip=True)}, {}),
        ("object", base, {"bos_token": typed(content="<s>", lstrip=True), "eos_token": typed(content="</s>")}, {}),
        ("not added before", bare, named, {}),
        ("a plain token as bos", bare, {"bos_token": "x", "eos_token": "</s>"}, {}),
        ("special_tokens_map rules", base, named, {"special_tokens_map.json": {"bos_token": "</s>"}}),
        ("special_tokens_map ignored", base, {**named, "added_tokens_decoder": {}},
         {"special_tokens_map.json": {"bos_token": "</s>"}}),
        ("added_tokens.json", base, named, {"added_tokens.json": {"<new>": 9}}),
        ("empty bos", base, {"bos_token": "", "eos_token": "</s>"}, {}),
        ("list", base, {**named, "additional_special_tokens": ["<new>", "x"]}, {}),
        ("object of roles", base, {**named, "extra_special_tokens": {"image_token": "<new>"}}, {}),
        ("other role", base, {**named, "image_token": "<new>"}, {}),
        ("order", base, {"mask_token": "[M]", "additional_special_tokens": ["<new>"], **named, "pad_token": "[PAD]"}, {}),
        ("split_special_tokens", base, {**named, "split_special_tokens": True}, {}),
    ]
    texts = ["a<s>b", "<s> a", "a <s> b", "[PAD]a", "a [PAD]b", "<new>b", "ax", "[M]x", "</s>"]
    cases = []
    for name, file, config, others in table:
        with tempfile.TemporaryDirectory() as d:
            files = {"tokenizer.json": file, "config.json": {"model_type": "llama"},
                     "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **config}, **others}
            for f, content in files.items():
                with open(os.path.join(d, f), "w") as out:
                    json.dump(content, out)
            t = AutoTokenizer.from_pretrained(d)
        case = dict(
            name=name, files=files, bos=t.bos_token_id, eos=t.eos_token_id, size=len(t),
            encode=[dict(text=s, ids=t.encode(s, add_special_tokens=False)) for s in texts])
        if not any(a.normalized for a in t.added_tokens_decoder.values()):  # see decoder_of
            case["decode"] = t.decode(list(range(len(t))), skip_special_tokens=True)
        cases.append(case)
    return cases


def write(name, value):
    with open(os.path.join(OUT, name), "w", encoding="utf-8") as f:
        if isinstance(value, list):  # one case a line
            f.write("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in value) + "\n]\n")
        else:
            json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")


def main():
    os.makedirs(OUT, exist_ok=True)
    write("versions.json", {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__})
    for name, file in make_tokenizers().items():
        write(f"{name}.json", file)
        write(f"{name}.encode.json", encode_cases(file))
        write(f"{name}.decode.json", decode_cases(file))
    write("directories.json", directory_cases())


if __name__ == "__main__":
    main()
