#!/usr/bin/env python3
"""Makes the small reference cases in testdata/golden with Transformers and PEFT, in float32 on a CPU.

    python make_golden.py [--out DIR] [case ...]

The format is in testdata/golden/README.md. The same versions on the same kind of CPU give the same bytes.
"""

import argparse
import contextlib
import json
import os
import sys

import reference as ref
import torch
import transformers.models.llama.modeling_llama as llama_code
import transformers.models.mistral.modeling_mistral as mistral_code
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
TRAIN = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 6, "learning_rate": 5e-3,
    "lr_scheduler_type": "constant", "warmup_steps": 0, "warmup_ratio": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999,
    "adam_epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0,
    "optimizer": "adamw",
}


# ---------------------------------------------------------------- checkpoints

def tensors(c):
    d, ff, v, n = c["hidden_size"], c["intermediate_size"], c["vocab_size"], c["num_attention_heads"]
    kv = c.get("num_key_value_heads") or n
    hd = c.get("head_dim") or d // n
    yield "model.embed_tokens.weight", (v, d), 0.2 if c.get("tie_word_embeddings") else 0.5
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (d,), None
        for name, out, inp in (("q", n * hd, d), ("k", kv * hd, d), ("v", kv * hd, d), ("o", d, n * hd)):
            yield f"{layer}self_attn.{name}_proj.weight", (out, inp), 0.18
            if c.get("attention_bias"):
                yield f"{layer}self_attn.{name}_proj.bias", (out,), 0.2
        yield layer + "post_attention_layernorm.weight", (d,), None
        for name, out, inp in (("gate", ff, d), ("up", ff, d), ("down", d, ff)):
            yield f"{layer}mlp.{name}_proj.weight", (out, inp), 0.16
            if c.get("mlp_bias"):
                yield f"{layer}mlp.{name}_proj.bias", (out,), 0.2
    yield "model.norm.weight", (d,), None
    if not c.get("tie_word_embeddings"):
        yield "lm_head.weight", (v, d), 0.2


def write_model(path, case):
    """config.json, weights and a tokenizer of single characters."""
    config, dtype = case["config"], getattr(torch, case["dtype"])
    g = torch.Generator().manual_seed(case["seed"])
    weights = {}
    for name, shape, scale in tensors(config):
        noise = torch.randn(shape, generator=g)
        weights[name] = (1 + 0.1 * noise if scale is None else scale * noise).to(dtype)
    if case.get("stored_as_lm_head"):
        weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    ref.empty_dir(path)
    dump(os.path.join(path, "config.json"), config)
    write_tokenizer(path, config)
    shards = case.get("shards", 1)
    if shards == 1:
        save_file(weights, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
        return
    names, where = list(weights), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
        save_file({k: weights[k] for k in part}, os.path.join(path, file), metadata={"format": "pt"})
        where.update({k: file for k in part})
    total = sum(w.numel() * w.element_size() for w in weights.values())
    dump(os.path.join(path, "model.safetensors.index.json"),
         {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))})


def write_tokenizer(path, config):
    """LLaMA's shape of tokenizer.json with no merges: three marks, the space, then printable characters."""
    pieces = ["<unk>", "<s>", "</s>", "\u2581"] + [chr(c) for c in range(ord("!"), ord("~"))]
    pieces = pieces[:config["vocab_size"]]
    bos, sequence = {"SpecialToken": {"id": "<s>", "type_id": 0}}, lambda x: {"Sequence": {"id": x, "type_id": 0}}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    dump(os.path.join(path, "tokenizer.json"), {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": pieces[i], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, space]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [bos, sequence("A")], "pair": [bos, sequence("A"), sequence("B")],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "vocab": {p: i for i, p in enumerate(pieces)}, "merges": []},
    }, None)
    dump(os.path.join(path, "tokenizer_config.json"), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": config["max_position_embeddings"], "tokenizer_class": "PreTrainedTokenizerFast"})


def dump(path, value, indent=1):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=indent, ensure_ascii=False)
        f.write("\n")


# ---------------------------------------------------------------- float64, to see how much of a number is rounding

@contextlib.contextmanager
def float64():
    """Transformers with its float32 islands (norms, softmax) taken away; the rotary tables stay as they are."""
    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    def attention(module, q, k, v, mask, scaling, dropout=0.0, **kwargs):
        k, v = (llama_code.repeat_kv(x, module.num_key_value_groups) for x in (k, v))
        w = q @ k.transpose(2, 3) * scaling
        w = (w if mask is None else w + mask).softmax(-1)
        return (w @ v).transpose(1, 2).contiguous(), w

    patches = []
    for module, family in ((llama_code, "Llama"), (mistral_code, "Mistral")):
        patches.append((getattr(module, family + "RMSNorm"), "forward", norm))
        patches.append((module, "eager_attention_forward", attention))
    before = [(o, n, getattr(o, n)) for o, n, _ in patches]
    for o, n, f in patches:
        setattr(o, n, f)
    try:
        yield
    finally:
        for o, n, f in before:
            setattr(o, n, f)


# ---------------------------------------------------------------- one case

def make_rows(case):
    """Random ids after <s>; every third row ends in </s>. lengths, masked: of each row; heads: {row: (other, n)}
    copies the first n ids of an earlier row; holes: rows with masked stretches inside."""
    if "make_rows" in case:
        return case["make_rows"]()
    g = torch.Generator().manual_seed(case["seed"] + 1)
    low, rows = case.get("lowest_id", 3), []
    for i, (n, k) in enumerate(zip(case["lengths"], case["masked"])):
        ids = [1] + torch.randint(low, case["config"]["vocab_size"], (n - 1,), generator=g).tolist()
        if i in case.get("heads", {}):
            other, m = case["heads"][i]
            ids[:m] = rows[other]["input_ids"][:m]
        elif i % 3 == 0:
            ids[-1] = 2
        labels = [ref.MASKED] * k + ids[k:]
        if i in case.get("holes", ()):
            labels = [ref.MASKED if j > k and j % 4 == 1 else x for j, x in enumerate(labels)]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def build(out, case):
    ref.empty_dir(out)
    model_dir, init, final = (os.path.join(out, x) for x in ("model", "adapter_init", "adapter_final"))
    t = {**TRAIN, **case.get("train", {})}
    write_model(model_dir, case)
    rows = make_rows(case)
    ref.write_rows(os.path.join(out, "rows.jsonl"), rows)
    probe_rows = case.get("logits_rows") or [i for i in (0, 1, 3, 5) if i < len(rows)]
    probe = [rows[i] for i in probe_rows]
    fresh = ref.fresh_adapter(ref.load_base(model_dir), case["lora"], case["seed"] + 7)
    ref.save_adapter(fresh, init, case.get("binary"))
    plan = ref.step_plan(len(rows), t["per_device_train_batch_size"], t["gradient_accumulation_steps"], t["max_steps"])

    expected = {"logits": ref.logits_of(ref.load_adapter(model_dir, init), probe)}
    first = [rows[r] for r in plan[0][0]]
    with torch.no_grad():
        first_loss = ref.loss_sum(ref.load_adapter(model_dir, init), first).item() / ref.label_count(first)
    model = ref.load_adapter(model_dir, init)  # anew: a dynamic rotary table remembers the lengths it has seen
    run = ref.train(model, rows, plan, t)
    ref.save_adapter(model, final, case.get("binary"))
    for name in stored(final):
        grad = run["grads"].get(name)
        if grad is None:  # one matrix under two names (ensure_weight_tying)
            grad = run["grads"]["base_model.model.model.embed_tokens.weight"]
        expected["grad/" + name] = grad.clone()
    save_file({k: v.contiguous() for k, v in expected.items()}, os.path.join(out, "expected.safetensors"))

    with float64():
        logits64 = ref.logits_of(ref.load_adapter(model_dir, init).double(), probe)
        run64 = ref.train(ref.load_adapter(model_dir, init).double(), rows, plan, t)
    result = {
        "name": case["name"], "tests": case["tests"], "later": False, "versions": ref.VERSIONS,
        "weights_dtype": case["dtype"], "seed": case["seed"], "logits_rows": probe_rows, "lora": case["lora"],
        "train": {**t, "warmup_steps": ref.warmup_steps(t)}, "notes": case.get("notes", []),
        "expected": {"first_batch_loss": first_loss,
                     **{k: run[k] for k in ("losses", "grad_norms", "lrs", "label_tokens")}},
        "float32_against_float64": {
            "logits_max_abs": ref.short((expected["logits"].double() - logits64).abs().max().item()),
            "first_grads_worst_relative": ref.short(ref.worst_relative(run["grads"], run64["grads"])),
            "losses_worst_relative": ref.short(ref.worst_relative_number(run["losses"], run64["losses"])),
            "adapter_final_worst_relative": ref.short(ref.worst_relative(run["final"], run64["final"])),
        },
        "steps": plan,
    }
    ref.write_json(os.path.join(out, "case.json"), result)
    size = 0
    for folder, _, files in os.walk(out):
        for f in files:
            os.chmod(os.path.join(folder, f), 0o644)
            size += os.path.getsize(os.path.join(folder, f))
    print(f"{case['name']:<22} {size // 1000:4d} KB  tokens {sum(len(r['input_ids']) for r in rows):4d}  "
          f"loss {run['losses'][0]:.3f} -> {run['losses'][-1]:.3f}  {list(result['float32_against_float64'].values())}",
          flush=True)


def stored(adapter_dir):
    """The trained tensors of an adapter directory; PEFT also stores the frozen base layer of an adapted head."""
    file = os.path.join(adapter_dir, "adapter_model.safetensors")
    names = load_file(file) if os.path.exists(file) else torch.load(os.path.join(adapter_dir, "adapter_model.bin"))
    return sorted(n for n in names if ".base_layer." not in n)


# ---------------------------------------------------------------- the cases

def llama(**over):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 61, "hidden_size": 24,
        "intermediate_size": 34, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, **over}
    return {k: v for k, v in config.items() if v is not ...}


def cases():
    lengths, masked = [17, 6, 23, 2, 11, 14], [5, 2, 9, 0, 1, 13]
    qv = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    tied = llama(tie_word_embeddings=True, vocab_size=47)
    attention = {"r": 2, "lora_alpha": 5, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}

    def case(name, tests, config, lora, **more):
        case.seed += 100
        return {"name": name, "tests": tests, "config": config, "lora": lora, "seed": case.seed, "dtype": "bfloat16",
                "lengths": lengths, "masked": masked, **more}

    case.seed = 5000
    yield case(
        "odd-widths", "hidden 36, intermediate 50, vocabulary 97, three heads of 12; all-linear by string; a row of "
        "two tokens without a mask, a row with one label",
        llama(vocab_size=97, hidden_size=36, intermediate_size=50, num_attention_heads=3, num_key_value_heads=3),
        {"r": 2, "lora_alpha": 7, "target_modules": "all-linear"}, holes=(2,),
        train={"per_device_train_batch_size": 4, "max_grad_norm": 0.0})
    yield case(
        "mqa-regex-shards", "one key/value head for five heads of 6; a regular expression as target; three shards in "
        "float16; the last row is a batch of its own with one label",
        llama(hidden_size=30, num_attention_heads=5, num_key_value_heads=1, intermediate_size=46, vocab_size=53),
        {"r": 5, "lora_alpha": 10, "target_modules": r"model\.layers\.[01]\.(self_attn\.(q|k)_proj|mlp\.up_proj)"},
        dtype="float16", shards=3, lengths=lengths[:5], masked=masked[:4] + [10])
    yield case(
        "head-dim-exclude", "explicit head_dim 14 with hidden 21 and three heads: q_proj is 42 x 21; exclude_modules "
        "as a list", llama(hidden_size=21, head_dim=14, num_attention_heads=3, num_key_value_heads=1),
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "exclude_modules": ["k_proj", "mlp.gate_proj"]},
        holes=(0,), train={"weight_decay": 0.1, "lr_scheduler_type": "linear", "warmup_steps": 2})
    yield case(
        "exclude-regex", "exclude_modules as a regular expression; rms_norm_eps, rope_theta and num_key_value_heads "
        "left to their defaults; weights in float32", llama(rms_norm_eps=..., rope_theta=..., num_key_value_heads=...),
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj", "down_proj"],
         "exclude_modules": r".*layers\.1\..*_proj"}, dtype="float32")
    mistral = llama(architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=20, head_dim=12,
                    num_attention_heads=4, max_position_embeddings=256, sliding_window=8)
    yield case(
        "mistral-window", "sliding_window 8 with rows of up to 44 tokens", mistral, attention,
        lengths=[40, 8, 44, 9, 27, 12], masked=[11, 3, 6, 0, 20, 9], logits_rows=[0, 3])
    yield case(
        "mistral-window-one", "sliding_window 1: every token sees itself only", dict(mistral, sliding_window=1), qv,
        lengths=[9, 12, 6, 15], masked=[2, 0, 3, 8], train={"max_steps": 4})
    yield case(
        "tied-as-lm-head", "tied embeddings of which only lm_head.weight is stored", tied, qv, stored_as_lm_head=True,
        train={"lr_scheduler_type": "cosine", "warmup_ratio": 0.3})
    yield case(
        "bias-gaussian-layers", "attention_bias and mlp_bias, gaussian init, layers_to_transform with one number, "
        "three shards in bfloat16",
        llama(attention_bias=True, mlp_bias=True, num_hidden_layers=3, num_key_value_heads=1),
        {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "o_proj", "gate_proj", "down_proj"],
         "layers_to_transform": 1, "init_lora_weights": "gaussian"}, shards=3)
    yield case(
        "lora-lm-head", "LoRA on lm_head beside q_proj and v_proj", llama(),
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "lm_head"]},
        notes=["PEFT stores the frozen lm_head as base_layer.weight too; it is no part of what is expected"])
    yield case(
        "save-lm-head", "modules_to_save lm_head alone", llama(vocab_size=47), {**qv, "modules_to_save": ["lm_head"]},
        train={"learning_rate": 2e-3, "max_steps": 4})
    yield case(
        "save-embed-tied", "modules_to_save embed_tokens on a tied model: the head keeps the base's weights", tied,
        {**qv, "modules_to_save": ["embed_tokens"]},
        train={"learning_rate": 2e-3, "max_steps": 4, "weight_decay": 0.05})
    yield case(
        "save-both-tied", "modules_to_save embed_tokens and lm_head on a tied model: two matrices from now on", tied,
        {**qv, "modules_to_save": ["embed_tokens", "lm_head"]}, train={"learning_rate": 2e-3, "max_steps": 4})
    yield case(
        "save-tied-ensured", "ensure_weight_tying: one trained matrix, read as embedding and as head", tied,
        {**qv, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        train={"learning_rate": 2e-3, "max_steps": 4},
        notes=["the gradient and the value of the one matrix stand under every name that PEFT stores it by; in the "
               "gradient norm it counts once"])
    yield case(
        "pad-embed", "pad_token_id 4 among the ids, embed_tokens trained: its row gets no gradient; ids that repeat in "
        "a row", llama(pad_token_id=4, vocab_size=24, intermediate_size=46),
        {**qv, "modules_to_save": ["embed_tokens"]}, train={"learning_rate": 2e-3})
    yield case(
        "long-rows", "rows of 230 and 207 tokens, learnt from the first token on and at the end only",
        llama(num_key_value_heads=1, vocab_size=36, max_position_embeddings=256), attention,
        lengths=[230, 207, 31, 3], masked=[0, 190, 7, 1], logits_rows=[1, 2], train={"max_steps": 4})
    yield case(
        "shared-heads", "rows that are equal, rows that share a head of the prompt, the whole prompt and some of the "
        "answer, one row that is the head of another; accumulation 2 with a shorter last window", llama(), qv,
        lengths=[20, 20, 24, 24, 13, 20, 9, 16, 20, 5], masked=[12, 12, 12, 14, 12, 8, 3, 12, 12, 4],
        heads={1: (0, 20), 2: (0, 12), 3: (2, 17), 4: (0, 13), 5: (0, 20), 7: (0, 15), 8: (6, 1), 9: (6, 4)},
        logits_rows=[0, 3, 4], train={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2})
    yield case(
        "dynamic-theta", "dynamic rope, factor 3.5 over 24 positions with rope_theta 700; each batch of one length",
        llama(max_position_embeddings=24, rope_theta=700.0, rope_scaling={"rope_type": "dynamic", "factor": 3.5}),
        attention, lengths=[41, 41, 13, 13], masked=[20, 4, 0, 6], logits_rows=[0, 2],
        notes=["Transformers' table depends on the batches before; every batch here has rows of one length and each "
               "longer one is followed by one below max_position_embeddings, which resets it"])
    yield case(
        "yarn-mscale", "yarn with mscale 0.9 and mscale_all_dim 0.6, beta_fast 6, beta_slow 0.5, truncate false",
        llama(rope_scaling={
            "rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 20, "beta_fast": 6.0,
            "beta_slow": 0.5, "mscale": 0.9, "mscale_all_dim": 0.6, "truncate": False}), attention)
    yield case(
        "yarn-given-factor", "yarn with attention_factor 1.25, in rope_parameters with rope_theta 3000 inside",
        llama(rope_theta=..., rope_parameters={
            "rope_type": "yarn", "rope_theta": 3000.0, "factor": 2.5, "original_max_position_embeddings": 16,
            "attention_factor": 1.25, "beta_fast": 8, "beta_slow": 2}), attention)
    yield case(
        "linear-theta", "linear rope by 1.7 in rope_parameters with rope_theta 500",
        llama(rope_theta=..., rope_parameters={"rope_type": "linear", "factor": 1.7, "rope_theta": 500.0}),
        attention, train={"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.4})
    yield case(
        "llama3-factors", "llama3 rope, factor 5, frequency factors 1.5 and 3, original length 40, rope_theta 2000",
        llama(num_key_value_heads=1, rope_theta=2000.0, rope_scaling={
            "rope_type": "llama3", "factor": 5.0, "low_freq_factor": 1.5, "high_freq_factor": 3.0,
            "original_max_position_embeddings": 40}),
        attention, lengths=[33, 6, 23, 12], masked=[5, 2, 9, 0], logits_rows=[0, 1])
    yield case(
        "adapter-bin", "adapters as adapter_model.bin; alpha and rank patterns; rsLoRA", llama(num_key_value_heads=1),
        {**attention, "use_rslora": True, "rank_pattern": {r"1\.self_attn\.q_proj": 6, "v_proj": 2},
         "alpha_pattern": {"layers.0.self_attn.o_proj": 9}}, binary=True)
    yield case(
        "masked-rows", "rows that are masked throughout take their place in a micro-batch, one of them alone in its "
        "own; a row whose only label is the first, which never counts", llama(), qv,
        lengths=[17, 6, 23, 2, 11, 14, 9], masked=[5, 6, 9, 2, 11, 13, 1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(HERE, "..", "golden"))
    p.add_argument("cases", nargs="*")
    args = p.parse_args()
    todo = list(cases())
    if unknown := set(args.cases) - {c["name"] for c in todo}:
        sys.exit(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(c['name'] for c in todo)}")
    for c in todo:
        if not args.cases or c["name"] in args.cases:
            build(os.path.join(args.out, c["name"]), c)


if __name__ == "__main__":
    main()
