"""What the Go benchmarks of model/weights, internal/gguf and tokenizer measure, by the Python libraries of the field.

    python open_and_encode.py SHARED [PARTS]     # needs torch, safetensors, gguf, tokenizers, tiktoken, sentencepiece

SHARED is the directory with tokenizers/ and data/. Prints the best of several runs, one thread. PARTS: any of
encode, dequantize, open (default: all; open makes a file with holes of 13.5 GB in the temporary directory).
"""
import json, os, sys, tempfile, time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def best(f, runs=5):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return min(times)


def text(shared):
    """The first megabyte of BioInstruct's instructions, inputs and outputs."""
    rows = json.load(open(f"{shared}/data/bioinstruct/bioinstruct-2501.json"))
    return "\n".join(r["instruction"] + "\n" + r["input"] + "\n" + r["output"] for r in rows).encode()[:1_000_000].decode(errors="ignore")


def encode(shared):
    import sentencepiece, tiktoken, tiktoken.load, tokenizers

    t = text(shared)
    mb = len(t.encode()) / 1e6
    for name in ("llama2", "llama3"):
        file = f"{shared}/tokenizers/{name}/tokenizer.json"
        load = best(lambda: tokenizers.Tokenizer.from_file(file), 3)
        tok = tokenizers.Tokenizer.from_file(file)
        print(f"tokenizers {name}: load {load * 1e3:.0f} ms, encode {mb / best(lambda: tok.encode(t, add_special_tokens=False), 3):.2f} MB/s")
    file = f"{shared}/tokenizers/llama2/tokenizer.model"
    load = best(lambda: sentencepiece.SentencePieceProcessor(model_file=file), 3)
    sp = sentencepiece.SentencePieceProcessor(model_file=file)
    print(f"sentencepiece llama2: load {load * 1e3:.0f} ms, encode {mb / best(lambda: sp.encode(t), 3):.2f} MB/s")
    file = f"{shared}/tokenizers/llama3/tokenizer.model"
    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    def make():
        return tiktoken.Encoding("llama3", pat_str=pattern, mergeable_ranks=tiktoken.load.load_tiktoken_bpe(file), special_tokens={})
    load = best(make, 3)
    tt = make()
    print(f"tiktoken llama3: load {load * 1e3:.0f} ms, encode {mb / best(lambda: tt.encode_ordinary(t), 3):.2f} MB/s")


def dequantize(shared):
    import numpy, gguf
    from gguf.quants import dequantize

    n = 1 << 22
    random = numpy.random.default_rng(1)
    for kind in ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"):
        t = getattr(gguf.GGMLQuantizationType, kind)
        elements, size = gguf.GGML_QUANT_SIZES[t]
        data = random.integers(0, 60, n // elements * size, dtype=numpy.uint8).reshape(1024, -1)
        with numpy.errstate(all="ignore"):
            s = best(lambda: numpy.ascontiguousarray(dequantize(data, t)), 3)
        print(f"gguf {kind}: {4 * n / s / 1e9:.2f} GB/s of float32")


def open_(shared):
    import torch, safetensors

    names = [("model.embed_tokens.weight", (32000, 4096)), ("model.norm.weight", (4096,)), ("lm_head.weight", (32000, 4096))]
    for i in range(32):
        p = f"model.layers.{i}."
        names += [(p + f"self_attn.{m}_proj.weight", (4096, 4096)) for m in "qkvo"]
        names += [(p + f"mlp.{m}_proj.weight", (11008, 4096)) for m in ("gate", "up")]
        names += [(p + "mlp.down_proj.weight", (4096, 11008))]
        names += [(p + f"{m}_layernorm.weight", (4096,)) for m in ("input", "post_attention")]
    header, at = {}, 0
    for name, shape in names:
        size = 2
        for d in shape:
            size *= d
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        with open(path, "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head)
            f.truncate(8 + len(head) + at)
        def safe():
            with safetensors.safe_open(path, "pt") as f:
                return [f.get_slice(k).get_shape() for k in f.keys()]
        print(f"safetensors 13.5 GB: open and list {best(safe) * 1e3:.1f} ms")
    with tempfile.TemporaryDirectory() as folder:  # a .bin of 1 GB: torch writes no holes
        path = os.path.join(folder, "pytorch_model.bin")
        torch.save({f"t{i}": torch.zeros(4096, 4096, dtype=torch.float16) for i in range(32)}, path)
        print(f"torch.load(mmap) 1 GB, 32 tensors: {best(lambda: torch.load(path, mmap=True, weights_only=True)) * 1e3:.1f} ms")
        print(f"torch.load 1 GB, 32 tensors: {best(lambda: torch.load(path, weights_only=True), 3) * 1e3:.0f} ms")


if __name__ == "__main__":
    parts = sys.argv[2:] or ["encode", "dequantize", "open"]
    for part in parts:
        {"encode": encode, "dequantize": dequantize, "open": open_}[part](sys.argv[1])
