#!/usr/bin/env python3
"""Makes the demo: testdata/demo/model (tokenizer and a tiny LLaMA) and testdata/demo/data (instructions).

    python make_demo.py --out DIR [--steps N] [--data-only]

The tokenizer is a byte-level BPE with LLaMA 3's way of cutting text into words, the model is trained from scratch on
`demo_text.document`, about 15 minutes on one core with bfloat16 products. The same versions on the same kind of CPU
give the same bytes. Made with torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, safetensors 0.8.0 on a CPU with
AVX-512 BF16.
"""

import argparse
import json
import math
import os
import random
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import demo_text
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 20240
VOCAB = 1536
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
SPACE = "\u0120"  # how byte-level BPE writes a space


# ---------------------------------------------------------------- tokenizer

def learn_merges(counts, wanted):
    """Byte pair encoding over words with their counts: the merges in order, ties by the pair itself."""
    words = [(list(w), n) for w, n in sorted(counts.items())]
    merges = []
    while len(merges) < wanted:
        pairs = {}
        for parts, n in words:
            for p in zip(parts, parts[1:]):
                pairs[p] = pairs.get(p, 0) + n
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for parts, _ in words:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = [parts[i] + parts[i + 1]]
                i += 1
    return merges, words


def make_tokenizer(texts, size):
    """Merges are learnt without the space before a word and a last round of merges adds the space to whole pieces:
    a word is cut in the same places at the start of a line and inside one, which makes copying it easy to learn."""
    cut = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    counts, spaced = {}, {}
    for text in texts:
        for word, _ in cut.pre_tokenize_str(text):
            bare = word[1:] if word.startswith(SPACE) and len(word) > 1 else word
            counts[bare] = counts.get(bare, 0) + 1
            if bare != word:
                spaced[bare] = spaced.get(bare, 0) + 1
    counts = {w: n for w, n in counts.items() if n >= 4}  # real words; made-up ones stay in small pieces
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = size - len(alphabet) - 2
    merges, words = learn_merges(counts, room * 6 // 10)
    heads = {}
    for parts, _ in words:
        n = spaced.get("".join(parts), 0)
        if n:
            heads[parts[0]] = heads.get(parts[0], 0) + n
    heads = sorted(heads, key=lambda h: (-heads[h], h))[: room - len(merges)]
    merges += [(SPACE, h) for h in heads]
    vocab = {t: i for i, t in enumerate([BOS, EOS] + alphabet + list(dict.fromkeys(x + y for x, y in merges)))}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.pre_tokenizer = cut
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([BOS, EOS])
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[(BOS, vocab[BOS])])])
    return tok


# ---------------------------------------------------------------- training

def documents(tok, rng, tokens):
    """At least `tokens` ids of documents, each between its begin and end marks; now and then random ids, repeated."""
    bos, eos = tok.token_to_id(BOS), tok.token_to_id(EOS)
    ids = []
    while len(ids) < tokens:
        for e in tok.encode_batch([demo_text.document(rng) for _ in range(200)]):
            ids += e.ids + [eos]
            if rng.random() < 0.06:
                part = [rng.randrange(2, tok.get_vocab_size()) for _ in range(rng.randint(4, 24))]
                ids += [bos] + part * rng.randint(2, 3) + [eos]
    return ids


def make_model(vocab):
    torch.manual_seed(SEED)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=None, initializer_range=0.04))


def optimizers(model):
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    blocks = [p for p in model.model.layers.parameters() if p.ndim == 2]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [torch.optim.Muon(blocks, lr=0.015, momentum=0.95, weight_decay=0.1),
            torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def rate(step, steps):
    """Warm-up over 2 %, flat, then down to nothing over the last 45 %."""
    return min(1.0, (step + 1) / (0.02 * steps), max(0.0, (steps - step) / (0.45 * steps)))


def train(model, tok, steps, batch_tokens=2048):
    rng = random.Random(SEED + 1)
    opts = optimizers(model)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    ids, start = [], time.time()
    for step in range(steps):
        length = 256 if step < 0.8 * steps else 512
        if len(ids) < batch_tokens + 1:
            ids += documents(tok, rng, 64 * batch_tokens)
        x = torch.tensor(ids[:batch_tokens]).view(-1, length)
        ids = ids[batch_tokens:]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o, lrs in zip(opts, base):
            for g, lr in zip(o.param_groups, lrs):
                g["lr"] = lr * rate(step, steps)
            o.step()
            o.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} {time.time() - start:.0f} s", flush=True)


def save_model(model, tok, path):
    os.makedirs(path, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    file = os.path.join(path, "model.safetensors")
    save_file(state, file, metadata={"format": "pt"})
    os.chmod(file, 0o644)
    config = model.config.to_dict()
    keep = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
            "tie_word_embeddings", "attention_bias", "mlp_bias", "bos_token_id", "eos_token_id", "initializer_range"]
    write_json(os.path.join(path, "config.json"), {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **{k: config[k] for k in keep},
        "rope_theta": 10000.0, "rope_scaling": None, "use_cache": True, "torch_dtype": "bfloat16"})
    tok.save(os.path.join(path, "tokenizer.json"), pretty=False)
    write_json(os.path.join(path, "tokenizer_config.json"), {
        "bos_token": BOS, "eos_token": EOS, "clean_up_tokenization_spaces": False, "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast"})


# ---------------------------------------------------------------- files

def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def write_rows(path, rows):
    """A JSON array, one row a line, as BioInstruct's file is."""
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "demo"))
    p.add_argument("--steps", type=int, default=4600)
    p.add_argument("--data-only", action="store_true", help="only the instructions")
    args = p.parse_args()
    data = os.path.join(args.out, "data")
    os.makedirs(data, exist_ok=True)
    write_rows(os.path.join(data, "train.json"), demo_text.instructions(random.Random(SEED + 2), 500, False))
    write_rows(os.path.join(data, "holdout.json"), demo_text.instructions(random.Random(SEED + 3), 50, True))
    if args.data_only:
        return
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rng = random.Random(SEED)
    texts = [demo_text.document(rng) for _ in range(8000)]
    texts += ["\n".join(r.values()) for r in demo_text.instructions(rng, 1500, False)]
    tok = make_tokenizer(texts, VOCAB)
    model = make_model(tok.get_vocab_size())
    print(f"{model.num_parameters()} parameters", flush=True)
    train(model, tok, args.steps)
    save_model(model, tok, os.path.join(args.out, "model"))


if __name__ == "__main__":
    main()
