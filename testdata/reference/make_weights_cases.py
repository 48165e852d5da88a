"""One tiny LLaMA in every form that weights come in, for testdata/weights.

    python make_weights_cases.py      # torch 2.15, transformers 5.23, gguf 0.19

Every folder is a checkpoint. The values of the model are multiples of 1/64 that F16 and BF16 hold exactly, so that all
forms of it but "quantised" must give the same bits. Meta's order of rows is checked here by a forward pass with Meta's
own rotation (neighbours as complex numbers) in float64. expected.safetensors: "ids" [12], and "logits/<case>"
[12, vocabulary] by Transformers: "base" for most folders, "scaled" with Llama 3.1's rotary scaling, "quantised".
hashes.json: SHA-256 of the dequantised tensors of "quantised" as float32 bytes, in Hugging Face's order and names.
"""

import hashlib
import json
import os
import pickle
import shutil
import sys
import warnings

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from make_pickle_cases import stable_legacy

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "weights")
warnings.simplefilter("ignore")
DIM, HEADS, KV, LAYERS, FFN, VOCAB = 16, 4, 2, 2, 32, 20
IDS = [1, 5, 7, 11, 2, 19, 0, 3, 3, 8, 13, 17]
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}


def config(**over):
    c = dict(vocab_size=VOCAB, hidden_size=DIM, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
             num_key_value_heads=KV, max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0,
             tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    c.update(over)
    return LlamaConfig(**c)


def random_state(model, seed):
    """Multiples of 1/64 below 2 (norms: near 1)."""
    g = torch.Generator().manual_seed(seed)
    out = {}
    for name, t in model.state_dict().items():
        x = torch.randint(-48, 49, t.shape, generator=g) / 64
        out[name] = 1 + x / 4 if t.dim() == 1 else x
    return {k: (v * 128).round() / 128 for k, v in out.items()}


def logits(cfg, state, dtype=torch.float32):
    torch.set_default_dtype(dtype)
    m = LlamaForCausalLM(cfg)
    torch.set_default_dtype(torch.float32)
    m.load_state_dict({k: v.to(dtype) for k, v in state.items()}, strict=False)
    if cfg.tie_word_embeddings:
        m.tie_weights()
    with torch.no_grad():
        return m.eval()(torch.tensor([IDS])).logits[0].float()


def write_config(folder, dtype="bfloat16", **over):
    c = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": DIM,
         "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV,
         "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
         "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "torch_dtype": dtype}
    c.update(over)
    write_json(os.path.join(folder, "config.json"), c)


def write_json(path, o):
    with open(path, "w") as f:
        json.dump(o, f, indent=1)
        f.write("\n")


def folder(name):
    path = os.path.join(OUT, name)
    os.makedirs(path)
    return path


def halves(state):
    names = list(state)
    n = len(names) // 2
    return [{k: state[k] for k in names[:n]}, {k: state[k] for k in names[n:]}]


def sharded(path, state, ending, save):
    parts = halves(state)
    index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in state.values())}, "weight_map": {}}
    stem = "model" if ending == "safetensors" else "pytorch_model"
    for i, p in enumerate(parts):
        name = f"{stem}-{i + 1:05}-of-{len(parts):05}.{ending}"
        save(p, os.path.join(path, name))
        index["weight_map"].update({k: name for k in p})
    index["weight_map"] = dict(sorted(index["weight_map"].items()))
    write_json(os.path.join(path, f"{stem}.{ending}.index.json"), index)


def interleave(w, heads):
    """Hugging Face's order of rows to Meta's and llama.cpp's."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)


META = {"self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
        "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
        "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm"}
GGUF = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm"}


def renamed(state, table, top, layer, heads, kv):
    out = {}
    for name, t in state.items():
        if name in top:
            out[top[name]] = t
            continue
        _, _, i, *module, kind = name.split(".")
        module = ".".join(module)
        n = {"self_attn.q_proj": heads, "self_attn.k_proj": kv}.get(module)
        out[f"{layer}.{i}.{table[module]}.{kind}"] = interleave(t, n).contiguous() if n else t
    return out


def to_meta(state):
    top = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight", "lm_head.weight": "output.weight"}
    m = renamed(state, META, top, "layers", HEADS, KV)
    m["rope.freqs"] = 1.0 / (10000.0 ** (torch.arange(0, DIM // HEADS, 2).float() / (DIM // HEADS)))
    return m


def meta_forward(m, theta=10000.0):
    """Meta's decoder in float64: pairs of neighbours are rotated as complex numbers."""
    m = {k: v.double() for k, v in m.items()}
    t, hd = len(IDS), DIM // HEADS
    freqs = 1.0 / (theta ** (torch.arange(0, hd, 2).double() / hd))
    turn = torch.polar(torch.ones(t, hd // 2, dtype=torch.float64), torch.outer(torch.arange(t).double(), freqs))[:, None]

    def norm(x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w

    def rotate(x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turn).flatten(-2)

    x = m["tok_embeddings.weight"][IDS]
    mask = torch.full((t, t), -torch.inf, dtype=torch.float64).triu(1)
    for i in range(LAYERS):
        def w(name):
            return m[f"layers.{i}.{name}.weight"]
        h = norm(x, w("attention_norm"))
        q = rotate((h @ w("attention.wq").T).view(t, HEADS, hd))
        k = rotate((h @ w("attention.wk").T).view(t, KV, hd)).repeat_interleave(HEADS // KV, 1)
        v = (h @ w("attention.wv").T).view(t, KV, hd).repeat_interleave(HEADS // KV, 1)
        p = torch.softmax(torch.einsum("qhd,khd->hqk", q, k) / hd**0.5 + mask, -1)
        x = x + torch.einsum("hqk,khd->qhd", p, v).reshape(t, DIM) @ w("attention.wo").T
        h = norm(x, w("ffn_norm"))
        x = x + (torch.nn.functional.silu(h @ w("feed_forward.w1").T) * (h @ w("feed_forward.w3").T)) @ w("feed_forward.w2").T
    return norm(x, m["norm.weight"]) @ m["output.weight"].T


def shard_meta(m, n, embed_dim):
    """Shard by rows or by columns, as fairscale's layers do."""
    out = [{} for _ in range(n)]
    for name, t in m.items():
        if t.dim() == 1:
            dim = None
        elif name.startswith("tok_embeddings"):
            dim = embed_dim
        else:
            dim = 1 if ".wo." in name or ".w2." in name else 0
        for i in range(n):
            out[i][name] = (t if dim is None else t.chunk(n, dim)[i]).clone()
    return out


PARAMS = {"dim": DIM, "multiple_of": 32, "ffn_dim_multiplier": 0.75, "n_heads": HEADS, "n_kv_heads": KV, "n_layers": LAYERS,
          "norm_eps": 1e-05, "vocab_size": -1}


def gguf_writer(path, cfg, name="tiny"):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(name)
    w.add_block_count(cfg.num_hidden_layers)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_feed_forward_length(cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    w.add_head_count_kv(cfg.num_key_value_heads)
    w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    w.add_rope_freq_base(cfg.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(cfg.hidden_size // cfg.num_attention_heads)
    w.add_vocab_size(cfg.vocab_size)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    return w


def to_gguf(state, heads, kv):
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    return renamed(state, GGUF, top, "blk", heads, kv)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_gguf(path, cfg, state, typ, **split):
    w = gguf_writer(path, cfg)
    for name, t in to_gguf(state, HEADS, KV).items():
        x = t.float().numpy()
        q = gguf.GGMLQuantizationType.F32 if t.dim() == 1 else typ
        w.add_tensor(name, gguf.quants.quantize(x, q), raw_dtype=q)
    finish(w)


def k_blocks(typ, rows, rng):
    """Random blocks of 256 with small scales: gguf cannot pack these types."""
    block, size = gguf.GGML_QUANT_SIZES[typ]
    raw = rng.integers(0, 256, (rows, size), dtype=np.uint8)
    scales = (rng.uniform(0.5, 1.5, (rows, 2)) * 0.002).astype(np.float16).view(np.uint8)
    if typ == gguf.GGMLQuantizationType.Q6_K:
        raw[:, size - 2:] = scales[:, :2]
        raw[:, 192:208] &= 0x8F
    else:
        raw[:, :4] = scales
    return raw


def quantised(expected):
    q = gguf.GGMLQuantizationType
    dim, heads, kv, layers, ffn, vocab = 32, 4, 2, 3, 256, 24
    cfg = config(hidden_size=dim, num_attention_heads=heads, num_key_value_heads=kv, num_hidden_layers=layers, intermediate_size=ffn,
                 vocab_size=vocab, max_position_embeddings=131072, rope_theta=500000.0, rope_scaling={**SCALING, "rope_theta": 500000.0})
    path = os.path.join(folder("quantised"), "tiny.gguf")
    state = random_state(LlamaForCausalLM(cfg), 7)
    rng = np.random.default_rng(7)
    w = gguf_writer(path, cfg, "tiny, quantised")
    w.add_eot_token_id(3)
    types = {"attn_q": q.Q8_0, "attn_k": q.Q4_0, "attn_v": q.Q5_0, "attn_output": q.Q4_1, "ffn_gate": q.Q4_0, "ffn_up": q.Q5_1,
             "token_embd": q.Q8_0, "output": q.Q5_1}
    down = [q.Q4_K, q.Q5_K, q.Q6_K]
    values = {}
    for (hf, t), (name, g) in zip(state.items(), to_gguf(state, heads, kv).items()):
        x, module = g.float().numpy(), name.split(".")[-2]
        if t.dim() == 1:
            typ, data = q.F32, x
        elif module == "ffn_down":
            typ = down[int(name.split(".")[1])]
            data = k_blocks(typ, dim, rng)
        else:
            typ = types[module]
            data = gguf.quants.quantize(x, typ)
        w.add_tensor(name, data, raw_dtype=typ)
        v = torch.from_numpy(gguf.quants.dequantize(data, typ).copy()).view(t.shape)
        n = {"attn_q": heads, "attn_k": kv}.get(module)
        if n:  # back to Hugging Face's order
            v = v.view(n, t.shape[0] // n // 2, 2, -1).transpose(1, 2).reshape(t.shape).contiguous()
        values[hf] = v
    hd = dim // heads
    freqs = 1.0 / (500000.0 ** (torch.arange(0, hd, 2, dtype=torch.float32) / hd))
    factors = []
    for f in freqs:
        length = 2 * np.pi / f
        if length < 8192 / 4:
            factors.append(1.0)
        elif length > 8192:
            factors.append(8.0)
        else:
            s = (8192 / length - 1) / 3
            factors.append(1 / ((1 - s) / 8 + s))
    w.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))
    finish(w)
    expected["logits/quantised"] = logits(cfg, values, torch.float64)
    write_json(os.path.join(OUT, "hashes.json"), {k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest() for k, v in values.items()})


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    cfg = config()
    state = random_state(LlamaForCausalLM(cfg), 1)
    expected = {"ids": torch.tensor(IDS, dtype=torch.int32), "logits/base": logits(cfg, state, torch.float64)}
    scaled = {"rope_theta": 500000.0, "rope_scaling": {**SCALING, "rope_theta": 500000.0}, "max_position_embeddings": 131072}
    expected["logits/scaled"] = logits(config(**scaled), state, torch.float64)
    bf16 = {k: v.bfloat16() for k, v in state.items()}
    assert all((v.half() == state[k]).all() and (bf16[k] == state[k]).all() for k, v in state.items())

    save_file(bf16, os.path.join(folder("base"), "model.safetensors"), {"format": "pt"})
    sharded(folder("sharded"), {k: v.half() for k, v in state.items()}, "safetensors", lambda p, f: save_file(p, f, {"format": "pt"}))
    torch.save({k: torch.nn.Parameter(v.half()) for k, v in state.items()}, os.path.join(folder("zip"), "pytorch_model.bin"))
    with open(os.path.join(folder("legacy"), "pytorch_model.bin"), "wb") as f:
        stable_legacy(bf16, f)
    sharded(folder("sharded-bin"), bf16, "bin", torch.save)
    torch.save({k: v.double() for k, v in state.items()}, os.path.join(folder("f64"), "pytorch_model.bin"))
    # Transposed matrices, and an embedding and a head that are halves of one storage; a module's own dictionary.
    both = torch.cat([bf16["model.embed_tokens.weight"], bf16["lm_head.weight"]])
    odd = {k: (v.t().contiguous().t() if v.dim() == 2 else v) for k, v in bf16.items()}
    odd["model.embed_tokens.weight"], odd["lm_head.weight"] = both[:VOCAB], both[VOCAB:]
    torch.save(odd, os.path.join(folder("strided"), "pytorch_model.bin"))
    model = LlamaForCausalLM(cfg)
    model.load_state_dict(state)
    torch.save(model.bfloat16().state_dict(), os.path.join(folder("module"), "pytorch_model.bin"))
    for name in ["base", "sharded", "zip", "legacy", "sharded-bin", "f64", "strided", "module"]:
        write_config(os.path.join(OUT, name))

    meta = to_meta(bf16)
    assert (meta_forward(meta) - expected["logits/base"].double()).abs().max() < 1e-5
    path = folder("meta")
    torch.save(meta, os.path.join(path, "consolidated.00.pth"))
    write_json(os.path.join(path, "params.json"), PARAMS)
    path = folder("meta-2")  # LLaMA 1 and 2: the embedding by columns
    for i, p in enumerate(shard_meta(meta, 2, 1)):
        torch.save(p, os.path.join(path, f"consolidated.{i:02}.pth"))
    write_json(os.path.join(path, "params.json"), PARAMS)
    path = folder("meta-2-scaled")  # Llama 3: the embedding by rows
    for i, p in enumerate(shard_meta(meta, 2, 0)):
        torch.save(p, os.path.join(path, f"consolidated.{i:02}.pth"))
    write_json(os.path.join(path, "params.json"), {**PARAMS, "vocab_size": VOCAB, "rope_theta": 500000.0, "use_scaled_rope": True})
    path = folder("mistral")
    save_file({k: v for k, v in meta.items() if k != "rope.freqs"}, os.path.join(path, "consolidated.safetensors"))
    write_json(os.path.join(path, "params.json"), {"dim": DIM, "n_layers": LAYERS, "head_dim": DIM // HEADS, "hidden_dim": FFN, "n_heads": HEADS,
                                                   "n_kv_heads": KV, "norm_eps": 1e-05, "vocab_size": VOCAB, "rope_theta": 10000.0})

    q = gguf.GGMLQuantizationType
    for name, typ in [("f32", q.F32), ("f16", q.F16), ("bf16", q.BF16)]:
        write_gguf(os.path.join(folder("gguf-" + name), f"tiny-{name}.gguf"), cfg, state, typ)
    quantised(expected)
    save_file(expected, os.path.join(OUT, "expected.safetensors"))


if __name__ == "__main__":
    main()
