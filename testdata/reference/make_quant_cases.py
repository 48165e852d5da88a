"""Writes internal/quant/testdata/nf4.safetensors: what bitsandbytes makes of small tensors in NF4.

    python testdata/reference/make_quant_cases.py

Made with torch 2.15.0 and bitsandbytes 0.50.2 on a CPU. For each case NAME (its shape is that of NAME.source):

    NAME.source       the tensor, float32, float16 or bfloat16
    NAME.packed       codes, two in a byte, the earlier in the high half
    NAME.absmax       scales of blocks of 64, float32
    NAME.values       what the codes and these scales stand for, float32; of small tensors only
    NAME.nested       codes of the scales less their mean, blocks of 256
    NAME.factors      scales of the scales
    NAME.offset       the mean of the scales
    NAME.nestedvalues what the codes and the doubly quantised scales stand for, float32

and code4 and code8, the code books.

Values come from bitsandbytes' portable operation: its AVX-512 kernel takes scales of other blocks where rows are a
multiple of 16 and not of 64, which no model of the field has.
"""

import os

import torch
import bitsandbytes.functional as F
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "internal", "quant", "testdata", "nf4.safetensors")


def normal(*shape):
    return torch.randn(*shape) * 0.02


def mixed():
    """Rows of zeros, of denormals, of one large number, of equal numbers, of ties between codes."""
    t = normal(8, 64)
    t[1] = 0
    t[2] = torch.arange(64) * 1e-41
    t[3, 17] = 300.0
    t[4] = -0.25
    code = F.get_4bit_type("nf4", device="cpu")
    ties = (code[:-1] + code[1:]) / 2
    t[5, :15], t[5, 15:30], t[5, 30:45], t[5, 63] = ties, torch.nextafter(ties, torch.tensor(2.0)), -ties, 1.0
    t[6] = torch.arange(64) * 1e-38
    t[7] = 0.0
    return t


def values(packed, absmax, code, shape):
    return _dequantize_4bit_compute(packed.flatten(), absmax, code, 64, shape, torch.float32).reshape(shape)


def cases():
    torch.manual_seed(7)
    for name, dtype in ("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16):
        yield "plain." + name, normal(6, 128).to(dtype)
        yield "mixed." + name, mixed().to(dtype)
        yield "straddle." + name, normal(5, 48).to(dtype)
        yield "ragged." + name, normal(7, 43).to(dtype)
    yield "one.f32", torch.tensor([[-3.5]])
    yield "zero.f32", torch.zeros(2, 64)
    yield "zeroend.f32", torch.cat([normal(1, 64), torch.zeros(1, 64)], 1)[:, :71].contiguous()
    yield "groups.bf16", (normal(270, 64) * torch.rand(270, 1) * 4).to(torch.bfloat16)
    yield "wide.f32", normal(1, 64 * 257)


def main():
    out = {"code4": F.get_4bit_type("nf4", device="cpu").float(), "code8": F.create_dynamic_map()}
    for name, source in cases():
        packed, state = F.quantize_4bit(source, blocksize=64, quant_type="nf4")
        out[name + ".source"], out[name + ".packed"], out[name + ".absmax"] = source, packed.flatten(), state.absmax
        if source.numel() < 4096:
            out[name + ".values"] = values(packed, state.absmax, state.code, source.shape)
        packed, state = F.quantize_4bit(source, blocksize=64, quant_type="nf4", compress_statistics=True)
        assert torch.equal(packed.flatten(), out[name + ".packed"])
        assert torch.equal(state.state2.code, out["code8"])
        state.dtype = torch.float32
        out[name + ".nested"], out[name + ".factors"] = state.absmax, state.state2.absmax
        out[name + ".offset"] = state.offset.reshape(1)
        absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset
        out[name + ".nestedvalues"] = values(packed, absmax, state.code, source.shape)
        if source.shape[-1] % 64 == 0:
            assert torch.equal(out[name + ".nestedvalues"], F.dequantize_4bit(packed, state).reshape(source.shape))
    save_file({k: v.clone().contiguous() for k, v in out.items()}, OUT)


if __name__ == "__main__":
    main()
