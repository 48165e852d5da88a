"""Writes model/testdata/rope_cases.json: inverse frequencies and rotary tables as Transformers makes them.

    OMP_NUM_THREADS=1 python testdata/reference/make_rope_cases.py

Made with torch 2.15.0 and transformers 5.23.0. Each case is a config.json (as text, so that the reader of
configurations is tested with it), the length of the sequence, the inverse frequencies, the positions and the tables at
them. All numbers are the bits of float32 values.

PyTorch's float32 powers differ by a unit in the last place between its AVX-512, AVX2 and plain kernels. The files of
ATEN_CPU_CAPABILITY=default, avx2 and avx512 differ in few numbers; the one that is checked in is avx512's.
"""

import json
import os

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

CASES = [
    # name, keys of the config, length of the sequence
    ("default-10000-16", dict(head_dim=16), 64),
    ("default-10000-6", dict(head_dim=6), 64),
    ("default-10000-48", dict(head_dim=48), 64),
    ("default-10000-128", dict(head_dim=128), 64),
    ("default-500000-128", dict(head_dim=128, rope_theta=500000.0), 64),
    ("default-1000000-80", dict(head_dim=80, rope_theta=1000000.0), 64),
    ("default-inner-theta", dict(head_dim=24, rope_theta=7.0, rope_parameters={"rope_type": "default", "rope_theta": 12345.678}), 64),
    ("far", dict(head_dim=8, max_position_embeddings=131072), 131072),
    ("linear", dict(head_dim=16, rope_scaling={"type": "linear", "factor": 2.0}), 64),
    ("linear-3.7", dict(head_dim=20, rope_theta=26000.0, rope_scaling={"type": "linear", "factor": 3.7}), 64),
    ("dynamic-short", dict(head_dim=16, max_position_embeddings=32, rope_scaling={"type": "dynamic", "factor": 2.0}), 32),
    ("dynamic-33", dict(head_dim=16, max_position_embeddings=32, rope_scaling={"type": "dynamic", "factor": 2.0}), 33),
    ("dynamic-48", dict(head_dim=16, max_position_embeddings=32, rope_scaling={"type": "dynamic", "factor": 2.0}), 48),
    ("dynamic-odd", dict(head_dim=10, rope_theta=500.5, max_position_embeddings=100, rope_scaling={"rope_type": "dynamic", "factor": 3.3}), 777),
    ("llama3-64", dict(head_dim=16, max_position_embeddings=512, rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}), 64),
    ("llama3.1", dict(head_dim=128, rope_theta=500000.0, max_position_embeddings=131072, rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}), 9000),
    ("llama3.2", dict(head_dim=64, rope_theta=500000.0, max_position_embeddings=131072, rope_scaling={"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}), 64),
    ("llama3-odd", dict(head_dim=36, rope_theta=7777.0, max_position_embeddings=300, original_max_position_embeddings=77, rope_scaling={"rope_type": "llama3", "type": "yarn", "factor": 5.5, "low_freq_factor": 1.3, "high_freq_factor": 3.1, "original_max_position_embeddings": 64}), 64),
    ("llama3-own-length", dict(head_dim=16, max_position_embeddings=200, rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 2.0}), 64),
    ("yarn", dict(head_dim=16, max_position_embeddings=128, rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 32}), 64),
    ("yarn-128", dict(head_dim=128, max_position_embeddings=65536, rope_scaling={"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}), 5000),
    ("yarn-no-truncate", dict(head_dim=24, max_position_embeddings=128, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False, "beta_fast": 8, "beta_slow": 0.5}), 64),
    ("yarn-attention-factor", dict(head_dim=16, max_position_embeddings=512, rope_scaling={"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 100, "attention_factor": 0.73}), 64),
    ("yarn-mscale", dict(head_dim=32, rope_theta=50000.0, max_position_embeddings=640, rope_scaling={"rope_type": "yarn", "factor": 10.0, "original_max_position_embeddings": 64, "mscale": 0.707, "mscale_all_dim": 1.3}), 64),
    ("yarn-one-mscale", dict(head_dim=16, max_position_embeddings=640, rope_scaling={"rope_type": "yarn", "factor": 10.0, "original_max_position_embeddings": 64, "mscale": 0.707}), 64),
    ("yarn-no-factor", dict(head_dim=16, max_position_embeddings=100, rope_scaling={"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 30}), 64),
    ("yarn-own-length", dict(head_dim=16, max_position_embeddings=90, rope_scaling={"rope_type": "yarn", "factor": 3.0}), 64),
    ("yarn-equal-ends", dict(head_dim=4, max_position_embeddings=128, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 1, "beta_slow": 1, "truncate": False}), 64),
    ("yarn-crossed-ends", dict(head_dim=32, rope_theta=100.0, max_position_embeddings=4096, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 1, "beta_slow": 32}), 64),
]


def bits(t):
    return t.contiguous().view(torch.int32).flatten().tolist()


def main():
    out = []
    for name, keys, length in CASES:
        text = json.dumps({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, **keys})
        config = LlamaConfig(**json.loads(text))
        rope = LlamaRotaryEmbedding(config)
        cos, sin = rope(torch.zeros(1), torch.arange(length)[None])
        positions = sorted({0, 1, 2, 7, length // 3, length // 2, length - 2, length - 1})
        half = config.head_dim // 2
        out.append({
            "name": name, "config": json.loads(text), "length": length,
            "inv_freq": bits(rope.inv_freq),
            "positions": positions,
            "cos": bits(cos[0, positions, :half]),
            "sin": bits(sin[0, positions, :half]),
        })
    path = os.path.join(os.path.dirname(__file__), "..", "..", "model", "testdata", "rope_cases.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")


if __name__ == "__main__":
    main()
