"""Files of torch.save for internal/pickle/testdata, and what is in them.

    python make_pickle_cases.py      # torch 2.15

expected.json: file -> [[name, type, shape, row-major bytes in hexadecimal], ...] in the order of the dictionary, or
the beginning of what the error must say.
"""

import collections
import io
import json
import os
import pickle
import warnings
import zipfile

import torch
import torch.serialization as ts

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "internal", "pickle", "testdata")
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
warnings.simplefilter("ignore")


def tensors():
    g = torch.Generator().manual_seed(1)
    base = torch.randn(4, 6, generator=g)
    d = collections.OrderedDict()
    for t in TYPES:
        d[str(t)] = (base * 8).to(t)
    d["scalar"] = torch.tensor(2.5)
    d["empty"] = torch.zeros(0, 3)
    d["transposed"] = base.t()
    d["permuted"] = torch.arange(24, dtype=torch.int16).view(2, 3, 4).permute(2, 0, 1)
    d["columns"] = base[:, 1:4]
    d["rows"] = base[1:3]
    d["every other"] = base[::2, ::3]
    d["shares"] = base
    d["bf16 transposed"] = base.bfloat16().t()
    d["ones"] = torch.randn(1, 3, 1, generator=g).transpose(0, 2)
    d["parameter"] = torch.nn.Parameter(base[0].clone())
    d["naïve ü"] = torch.ones(2)
    return d


def stable_legacy(state, f):
    """The old format names storages by their address in memory; here they are numbered."""
    ids = {}

    class Meta(type):
        def __instancecheck__(cls, x):
            return isinstance(x, str)

    class Str(metaclass=Meta):
        def __new__(cls, x=""):
            return str(94000000000000 + ids.setdefault(x, len(ids))) if isinstance(x, int) and x > 1 << 20 else str(x)

    ts.str = Str
    try:
        ts._legacy_save(state, f, pickle, ts.DEFAULT_PROTOCOL)
    finally:
        del ts.str


def describe(d):
    out = []
    for name, t in d.items():
        raw = bytes(t.detach().flatten().clone().view(torch.uint8).tolist()) if t.numel() else b""
        out.append([name, TYPES[t.dtype], list(t.shape), raw.hex()])
    return out


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


class Getattr:
    def __reduce__(self):
        return getattr, (0, "real")


def main():
    os.makedirs(OUT, exist_ok=True)
    expected = {}

    def put(name, data, what):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(data)
        expected[name] = what

    def zipped(obj, **kw):
        b = io.BytesIO()
        torch.save(obj, b, **kw)
        return b.getvalue()

    d = tensors()
    put("zip.bin", zipped(d), describe(d))
    put("zip4.bin", zipped(dict(d), pickle_protocol=4), describe(d))
    b = io.BytesIO()
    stable_legacy(d, b)
    put("legacy.bin", b.getvalue(), describe(d))
    m = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    torch.manual_seed(0)
    for p in m.parameters():
        torch.nn.init.normal_(p)
    put("module.bin", zipped(m.state_dict()), describe(m.state_dict()))
    put("none.bin", zipped({}), [])
    put("expanded.bin", zipped({"a": torch.ones(1).expand(1000)}), "archive/data.pkl: before byte 159: a tensor of shape [1000] over storage")
    put("nested.bin", zipped({"model": {"a": torch.ones(1)}, "step": 3}), '"model" is a dictionary, not a tensor')
    put("number.bin", zipped({"a": torch.ones(1), "step": 3}), '"step" is a 3, not a tensor')
    put("list.bin", zipped([torch.ones(1)]), "a list was saved, want a dictionary of tensors")
    put("evil.bin", zipped({"a": Evil()}), "refused: posix.system")
    put("evil4.bin", zipped({"a": Evil()}, pickle_protocol=4), "refused: posix.system")
    put("getattr.bin", zipped({"a": Getattr()}), "refused: __builtin__.getattr")
    put("whole_module.bin", zipped(torch.nn.Linear(2, 2)), "refused: torch.nn.modules.linear.Linear")
    put("float8.bin", zipped({"a": torch.ones(2).to(torch.float8_e4m3fn)}), "refused: torch")
    put("plain_evil.bin", pickle.dumps(Evil(), protocol=0), "refused: posix.system")
    put("plain.bin", pickle.dumps({"a": 1}), "neither a zip nor the old format of torch.save")
    b = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(zipped({"a": torch.ones(300)}))) as z, zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as w:
        for i in z.infolist():
            if not i.filename.endswith("byteorder"):
                w.writestr(i.filename, z.read(i))
    put("deflated.bin", b.getvalue(), 'record "data.pkl" is compressed')
    with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(json.dumps(k) + ": " + json.dumps(v, ensure_ascii=False) for k, v in expected.items()) + "\n}\n")


if __name__ == "__main__":
    main()
