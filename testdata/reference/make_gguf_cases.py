"""Files for internal/gguf/testdata: packed blocks with what they are unpacked to, and a small file.

    python make_gguf_cases.py      # gguf 0.19, numpy 2.4, ggml-python 0.0.45 (ggml's own code, built from source)

blocks.json: {"random": [[type, blocks, SHA-256 of all numbers], ...], "packed": [{type, from, blocks (base64), hashes:
of each block's numbers, first: those of the first block (base64 of float32)}, ...]}. Every NaN is 0x7fc00000. The
random blocks are the numbers of SplitMix64 from the type's number on, eight bytes each, little-endian.
tiny.gguf: every kind of value and tensors of several types, written by gguf's GGUFWriter.
tiny.json: the numbers of its tensors.
"""

import base64
import ctypes
import hashlib
import json
import os

import ggml
import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "internal", "gguf", "testdata")
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
          T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}  # where a block has its halves
ODD = [0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xfe01]
RANDOM = 2048  # blocks


def splitmix64(seed, n):
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unpack(t, blocks):
    """blocks [n, bytes] -> float32 [n, elements], NaNs made equal"""
    with np.errstate(all="ignore"):
        if t == T.F64:
            y = blocks.view(np.float64).astype(np.float32)
        else:
            y = gguf.quants.dequantize(blocks, t)
    y = np.ascontiguousarray(y, dtype=np.float32).reshape(len(blocks), -1)
    return np.where(np.isnan(y), np.uint32(0x7FC00000), y.view(np.uint32)).astype("<u4")


def case(t, origin, blocks):
    y = unpack(t, blocks)
    return {"type": t.name, "from": origin, "blocks": base64.b64encode(blocks.tobytes()).decode(),
            "hashes": [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in y],
            "first": base64.b64encode(y[0].tobytes()).decode()}


def pack_ggml(t, x):
    """x float32 [rows, n] -> blocks, by llama.cpp's own packers"""
    elements, size = GGML_QUANT_SIZES[t]
    out = np.zeros((x.size // elements, size), np.uint8)
    fp = ctypes.POINTER(ctypes.c_float)
    n = ggml.ggml_quantize_chunk(int(t), x.ctypes.data_as(fp), out.ctypes.data, 0, x.shape[0], x.shape[1], None)
    assert n == out.nbytes
    return out


def blocks():
    random, packed = [], []
    for t in [T.F32, T.F16, T.BF16, T.F64, *SCALES]:
        elements, size = GGML_QUANT_SIZES[t]
        n = RANDOM if elements > 1 else 4096
        b = splitmix64(t, (n * size + 7) // 8).astype("<u8").view(np.uint8)[: n * size].reshape(n, size)
        random.append([t.name, n, hashlib.sha256(unpack(t, b).tobytes()).hexdigest()])
    rng = np.random.default_rng(1)
    for t, fields in SCALES.items():
        elements, size = GGML_QUANT_SIZES[t]
        b = rng.integers(0, 256, (len(ODD), size), dtype=np.uint8)
        for i, odd in enumerate(ODD):
            for j, at in enumerate(fields):
                b[i, at : at + 2] = np.array([ODD[(i + 5 * j) % len(ODD)]], "<u2").view(np.uint8)
        packed.append(case(t, "odd scales", b))
        x = rng.standard_normal((2, 512)).astype(np.float32) * np.float32(0.02)
        x = x[:, : 4 * elements] if elements == 32 else x
        x[0, 3] = 1.5  # an outlier
        x[1, :elements] = 0
        x = np.ascontiguousarray(x)
        try:
            packed.append(case(t, "gguf", np.ascontiguousarray(gguf.quants.quantize(x, t)).reshape(-1, size)))
        except NotImplementedError:
            pass  # gguf packs no K formats
        packed.append(case(t, "llama.cpp", pack_ggml(t, x)))
    with open(os.path.join(OUT, "blocks.json"), "w") as f:
        lines = ",\n".join(json.dumps(c) for c in packed)
        f.write('{"random": [\n' + ",\n".join(json.dumps(r) for r in random) + '\n],\n"packed": [\n' + lines + "\n]}\n")


def tiny():
    path = os.path.join(OUT, "tiny.gguf")
    w = gguf.GGUFWriter(path, "llama")
    w.add_uint8("a.uint8", 200)
    w.add_int8("a.int8", -100)
    w.add_uint16("a.uint16", 60000)
    w.add_int16("a.int16", -30000)
    w.add_uint32("a.uint32", 4_000_000_000)
    w.add_int32("a.int32", -2_000_000_000)
    w.add_uint64("a.uint64", 1 << 63)
    w.add_int64("a.int64", -(1 << 62))
    w.add_float32("a.float32", 1e-5)
    w.add_float64("a.float64", 0.1)
    w.add_bool("a.true", True)
    w.add_bool("a.false", False)
    w.add_string("a.string", "Ā <|x|>\n")
    w.add_array("b.strings", ["<s>", "\u2581the", "给", "\n"])
    w.add_array("b.floats", [0.0, -1.5, 3.25])
    w.add_array("b.ints", [1, 6, -3])
    w.add_array("b.bools", [True, False, True])
    w.add_array("b.bytes", b"\x00\x7f\xff")
    for name in ["uint8", "int8", "uint16", "int16", "uint32", "int64", "uint64", "float64"]:
        kind = getattr(gguf.GGUFValueType, name.upper())
        w.add_key_value("c." + name, [1, 2, 3], gguf.GGUFValueType.ARRAY, sub_type=kind)
    rng = np.random.default_rng(2)
    numbers = {}
    for name, shape, t in [("token_embd.weight", (5, 64), T.F32), ("output_norm.weight", (7,), T.F32),
                           ("blk.0.attn_q.weight", (4, 32), T.F16), ("blk.0.attn_k.weight", (2, 3, 8), T.BF16),
                           ("blk.0.attn_v.weight", (3, 64), T.Q8_0), ("blk.0.ffn_up.weight", (2, 512), T.Q4_K),
                           ("blk.0.ffn_gate.weight", (2, 256), T.Q6_K), ("blk.0.ffn_down.weight", (1, 2, 2, 32), T.Q5_1)]:
        x = rng.standard_normal(shape).astype(np.float32)
        if t in (T.Q4_K, T.Q6_K):
            data = pack_ggml(t, x).reshape(shape[0], -1)
        else:
            data = gguf.quants.quantize(x, t)
        w.add_tensor(name, data, raw_dtype=t)
        y = gguf.quants.dequantize(data, t).astype("<f4")
        assert y.shape == shape and np.abs(y - x).max() < 0.3, name
        numbers[name] = [t.name, list(shape), hashlib.sha256(y.tobytes()).hexdigest()]
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with open(os.path.join(OUT, "tiny.json"), "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in numbers.items()) + "\n}\n")


os.makedirs(OUT, exist_ok=True)
blocks()
tiny()
