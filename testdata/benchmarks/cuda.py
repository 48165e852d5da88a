"""One command for the day that a GPU is there: is what lora-train computes on it right, how fast is it, and does it leak.

    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o .gpu/lora-train ./cmd/lora-train                   # here
    CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o .gpu/cuda.test ./internal/backend/cuda
    go run ./cmd/lora-data preview --json -n 400 --model ../shared/tokenizers/llama2 --data ../shared/data/bioinstruct/bioinstruct-2501.json >.gpu/bioinstruct.jsonl
    python3 testdata/benchmarks/cuda.py --lora-train .gpu/lora-train --tests .gpu/cuda.test --rows .gpu/bioinstruct.jsonl --out $OUT  # there, about 8 minutes

It runs from the root of the repository and needs python3 with torch (CUDA), safetensors, transformers and peft; the 7B
checkpoint is made there, of random numbers, below --work (14 GB). Where machines are lent by commands over a copy of the
working tree: name .gpu in what is carried (list it in .git/info/exclude; it is 40 MB), and give the command the 600 s that
it may take; peft, where it is missing, is a wheel to carry. --minutes is when no further part begins, --patience how many
seconds a program may take; one that hangs is ended. Every part writes its own file into --out as soon as it
is done, so that a run that is cut short leaves what it had; a part that fails is told and the next one begins. The exit
status is 1 where something is wrong.

  kernels  the tests of the operations on the card: float64's numbers, the same bits again, and sizes of 7B (--tests)
  golden   the reference cases of testdata/golden, PyTorch's losses, in f32 (1e-5) and bf16 (5 %) on the device
  twice    the same run twice: the same bits of the adapter; and the CPU's losses in f32
  ceiling  lora-train --benchmark: the card's rates, a step at 7B's width, where its time goes
  step     7B: the end of the first step, steps of about 8k tokens in bf16 and on nf4, the share of the bf16 rate
  side     Transformers + PEFT (bf16, sdpa) on the same rows: BioInstruct's (--rows; without it rows as long as those), and
           rows of 512 tokens. Where the card has no room for PEFT's step at once it takes it in halves, quarters, ...
  leak     1,000 steps of a small model, the card's memory looked at all along

--device cpu --layers 1 --hidden 64 and so on try the script itself on a machine without a card.

What no emulation shows, in the order in which to look:
  1. That it begins at all: the driver's functions by their names, PTX 7.4 compiled for the card, cublasLt found (this
     script takes PyTorch's) and taken: "own kernels" in the text of ceiling would be several times slower.
  2. kernels. Where a kernel is wrong or reads elsewhere: compute-sanitizer .gpu/cuda.test -test.run TestOracle/bf16/NAME
     with BIOLORA_TEST_CARD=1, then --tool racecheck: the emulation knows no races within a warp's turn, and no caches.
     TestOracle wrong and TestOracleLt right is a kernel of ours, the other way round what cublasLt is asked for.
  3. golden in f32 beyond 1e-5: ex2.approx, or cublasLt with CUBLAS_COMPUTE_32F_PEDANTIC.
  4. twice: bits that differ in TestOracleLt too are cublasLt's (the reduction scheme, the workspace), else a race.
  5. share, in step. By bytes and FLOPs a 7B step of 8k tokens in rows of 512 takes on an H200 (790 TFLOP/s and 4.3 TB/s as
     measured there) 275 ms of products, some 40 ms of attention, 40 of passes over memory, 10 to 20 between steps and
     kernels: 21,000 tokens/s, 0.7 of the rate. Far less is mostly products: ncu --clock-control none on 200 launches.
  6. The time between the last kernel of a step and the first of the next: the host makes 1,200 launches a step (q_proj and
     v_proj; 2,300 with all linears), asks cublasLt for some 20 plans where a step has another number of rows, and fills
     the next batch only after the step's norm has come.
  7. Memory in leak, and what the driver takes beside ours: RESULTS.md supposes half a GiB.
"""
import argparse, glob, hashlib, importlib.util, json, os, random, shutil, statistics, subprocess, sys, tempfile, threading, time

LENGTHS = [86, 105, 116, 125, 133, 140, 147, 154, 161, 169, 178, 187, 200, 218, 245, 329]  # BioInstruct, each sixteenth of its rows
LABELS = [12, 22, 30, 34, 40, 47, 55, 57, 64, 67, 74, 77, 86, 99, 118, 146]
HEAD, MASKED = 39, -100  # tokens that rows of the Alpaca template begin with
TARGETS = ["q_proj", "v_proj"]
GOALS = {"like BioInstruct": 2, "equal rows": 1.3, "share": 0.5}  # times PEFT's samples/s, and of the card's bf16 rate
PARTS = ["kernels", "golden", "twice", "ceiling", "step", "side", "leak"]


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


class Card:
    """The card's memory in use, in MiB, looked at while something runs."""

    def __init__(self, a):
        self.a, self.seen = a, []

    def now(self):
        if not self.a.device.startswith("cuda"):
            return 0
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True)
        return int(out.stdout.split()[0])

    def __enter__(self):
        self.going = True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.going:
            self.seen.append((time.time(), self.now()))
            time.sleep(0.25)

    def __exit__(self, *_):
        self.going = False
        self.thread.join()

    def peak(self):
        return max((m for _, m in self.seen), default=0)


def train(a, model, rows, flags, compute, device=None, work=None):
    """One run of lora-train: its events, when it began, the digest of the adapter, and the card's peak in MiB."""
    with tempfile.TemporaryDirectory(dir=a.work) as cwd, Card(a) as card:
        out = os.path.join(cwd, "out")
        began = time.time()
        command = [a.lora_train, "--model", model, "--data", rows, "--out", out, "--device", device or a.device, "--compute", compute,
                   "--cache-dir", os.path.join(a.work, "cache")] + flags
        first, events = [], os.path.join(out, "events.jsonl")
        with open(os.path.join(cwd, "text"), "w") as text:
            process = subprocess.Popen(command, stdout=text, stderr=text)
            while process.poll() is None:
                if time.time() - began > a.patience:
                    process.kill()
                if not first and os.path.exists(events) and "\n" in open(events).read():
                    first.append(time.time() - began)
                time.sleep(0.005)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}\nended with {process.returncode}:\n{open(os.path.join(cwd, 'text')).read()[-3000:]}")
        steps = [json.loads(line) for line in open(events)]
        adapter = hashlib.sha256(open(os.path.join(out, "adapter_model.safetensors"), "rb").read()).hexdigest()
        first = first or [time.time() - began]
        seen = card.seen
    return {"steps": steps, "first": first[0], "adapter": adapter, "peak_mib": card.peak(), "memory": seen}


def cublaslt():
    """Tells lora-train of PyTorch's cublasLt, which the loader does not find."""
    spec = importlib.util.find_spec("nvidia")
    found = [f for d in (spec.submodule_search_locations if spec else []) for f in glob.glob(os.path.join(d, "*", "lib", "libcublasLt.so.1*"))]
    if found:
        os.environ.setdefault("BIOLORA_CUBLASLT", sorted(found)[-1])
    say(f"cublasLt: {os.environ.get('BIOLORA_CUBLASLT', 'the one that the loader finds')}")


def kernels(a):
    """The tests of package cuda, on the card."""
    if not a.tests:
        return "there is no --tests", []
    environment = dict(os.environ, BIOLORA_TEST_CARD="1")
    out = subprocess.run([a.tests, "-test.v", "-test.timeout=200s"], capture_output=True, text=True, env=environment, cwd=a.work)
    with open(os.path.join(a.out, "kernels.txt"), "w") as f:
        f.write(out.stdout + out.stderr)
    lines = (out.stdout + out.stderr).splitlines()
    failed = [line.strip() for line in lines if "--- FAIL" in line or line.startswith("panic")]
    say(f"kernels: {sum('--- PASS' in line for line in lines)} tests pass, {len(failed)} fail")
    return {"exit": out.returncode}, failed or ([] if out.returncode == 0 else [f"it ended with {out.returncode}: {' '.join(lines[-3:])}"])


def golden_flags(c, directory):
    t = c["train"]
    flags = ["--adapter", os.path.join(directory, "adapter_init"), "--no-shuffle"]
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps",
                "warmup_ratio", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm"):
        flags += ["--" + key.replace("_", "-"), str(t[key])]
    return flags


def golden(a):
    """The losses of each case, in both arithmetics, beside PyTorch's."""
    result, wrong = [], []
    root = os.path.join("testdata", "golden")
    for name in sorted(os.listdir(root)):
        directory = os.path.join(root, name)
        path = os.path.join(directory, "case.json")
        if not os.path.exists(path):
            continue
        c = json.load(open(path))
        if c["later"] or not os.path.exists(os.path.join(directory, "rows.jsonl")):
            continue
        for compute, tolerance in (("f32", 1e-5), ("bf16", 5e-2)):
            got = train(a, os.path.join(directory, "model"), os.path.join(directory, "rows.jsonl"), golden_flags(c, directory), compute)
            far = max(abs(s["loss"] - w) / max(abs(w), 1e-9) for s, w in zip(got["steps"], c["expected"]["losses"], strict=True))
            result.append({"case": name, "compute": compute, "farthest": far})
            if not far <= tolerance:
                wrong.append(f"{name} in {compute}: a loss is off by {far:.2g}, at most {tolerance:g}")
    say(f"golden: {len(result)} runs, f32 off by at most {max(r['farthest'] for r in result if r['compute'] == 'f32'):.2g}, "
        f"bf16 by {max(r['farthest'] for r in result if r['compute'] == 'bf16'):.2g}")
    return result, wrong


def twice(a):
    """Bits that stay, and the CPU's losses."""
    directory = os.path.join("testdata", "golden", "odd-widths")
    c = json.load(open(os.path.join(directory, "case.json")))
    run = lambda compute, device=None: train(a, os.path.join(directory, "model"), os.path.join(directory, "rows.jsonl"), golden_flags(c, directory), compute, device)
    result, wrong = {}, []
    for compute in ("f32", "bf16"):
        one, two = run(compute), run(compute)
        result[compute] = one["adapter"]
        if one["adapter"] != two["adapter"]:
            wrong.append(f"{compute}: the adapters of two runs differ")
    card, cpu = run("f32"), run("f32", "cpu")
    far = max(abs(x["loss"] - y["loss"]) / abs(y["loss"]) for x, y in zip(card["steps"], cpu["steps"], strict=True))
    result["cpu"] = far
    if far > 1e-5:
        wrong.append(f"f32: a loss is off the CPU's by {far:.2g}")
    return result, wrong


def ceiling(a):
    text = subprocess.run([a.lora_train, "--benchmark", "--device", a.device, "--per-device-train-batch-size", "48"], capture_output=True, text=True,
                          timeout=a.patience)
    print(text.stdout, flush=True)
    if text.returncode:
        return {"text": text.stdout}, [text.stderr]
    return {"text": text.stdout}, ["products are not cublasLt's"] if "own kernels" in text.stdout + text.stderr else []


def checkpoint(a):
    """The directory of a checkpoint of random numbers in Hugging Face's layout, a file a layer."""
    import torch
    from safetensors.torch import save_file
    out = os.path.join(a.work, "model")
    if os.path.exists(os.path.join(out, "config.json")):
        return out
    os.makedirs(out)
    on = "cuda" if a.device.startswith("cuda") else "cpu"
    torch.manual_seed(0)
    index = {}

    def file(name, shapes):
        tensors = {k: torch.ones(s, dtype=torch.bfloat16) if len(s) == 1 else (torch.randn(s, device=on) * 0.02).to(torch.bfloat16).cpu() for k, s in shapes.items()}
        save_file(tensors, os.path.join(out, name), metadata={"format": "pt"})
        index.update(dict.fromkeys(tensors, name))

    d, ff = a.hidden, a.hidden * 43 // 16  # 11008 of 4096
    for i in range(a.layers):
        p = f"model.layers.{i}."
        file(f"model-{i:05d}.safetensors", {p + "input_layernorm.weight": (d,), p + "post_attention_layernorm.weight": (d,),
             **{p + f"self_attn.{m}_proj.weight": (d, d) for m in "qkvo"},
             p + "mlp.gate_proj.weight": (ff, d), p + "mlp.up_proj.weight": (ff, d), p + "mlp.down_proj.weight": (d, ff)})
    file("model-rest.safetensors", {"model.embed_tokens.weight": (a.vocab, d), "model.norm.weight": (d,), "lm_head.weight": (a.vocab, d)})
    json.dump({"metadata": {}, "weight_map": index}, open(os.path.join(out, "model.safetensors.index.json"), "w"))
    json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": a.layers,
               "num_attention_heads": d // 128 or 1, "num_key_value_heads": d // 128 or 1, "vocab_size": a.vocab, "max_position_embeddings": 4096,
               "rms_norm_eps": 1e-5, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
               "torch_dtype": "bfloat16"}, open(os.path.join(out, "config.json"), "w"))
    return out


def rows_file(a, name, batch, steps, tokens=None):
    """Rows for so many steps: of that many tokens, all with a label; those of --rows; or as long as BioInstruct's, which begin alike."""
    path = os.path.join(a.work, f"{name}-{batch}-{steps}.jsonl")
    rng = random.Random(1)
    if a.rows and not tokens:
        with open(a.rows) as f:
            rows = f.readlines()
        with open(path, "w") as f:
            f.writelines(rng.sample(rows, batch * steps))
        return path
    ids = lambda n: [rng.randrange(3, a.vocab) for _ in range(n)]
    head = ids(HEAD)
    with open(path, "w") as f:
        for i in range(batch * steps):
            k = rng.randrange(len(LENGTHS))
            if tokens:
                row = ids(tokens)
                labels = row
            else:
                row = head + ids(LENGTHS[k] - HEAD)
                labels = [MASKED] * (len(row) - LABELS[k]) + row[-LABELS[k]:]
            f.write(json.dumps({"input_ids": row, "labels": labels}) + "\n")
    return path


def flags_of(batch, steps):
    return ["--per-device-train-batch-size", str(batch), "--max-steps", str(steps), "--lora-r", "16", "--lora-alpha", "32", "--target-modules",
            ",".join(TARGETS), "--learning-rate", "3e-4", "--lr-scheduler-type", "constant", "--no-shuffle"]


def figures(got, warm, batch):
    steps = got["steps"][warm:]
    seconds = sum(s["seconds"] for s in steps)
    return {"samples_s": batch * len(steps) / seconds, "tokens_s": sum(s["tokens"] for s in steps) / seconds, "first_step_s": got["first"],
            "first_loss": got["steps"][0]["loss"], "peak_gib": got["peak_mib"] / 1024, "median_step_s": statistics.median(s["seconds"] for s in steps)}


def flops_a_token(a):
    """Of the products with frozen weights, forward and backward to the input; the head where all rows have a label."""
    d, ff = a.hidden, a.hidden * 43 // 16
    return 4 * (a.layers * (4 * d * d + 3 * d * ff) + a.vocab * d)


def bf16_rate(a):
    """The card's bf16 rate by a product of PyTorch's, FLOP/s."""
    import torch
    if not a.device.startswith("cuda"):
        return float("nan")
    n = 8192
    x, y = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in "xy")
    for _ in range(3):
        x @ y
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        x @ y
    torch.cuda.synchronize()
    rate = 10 * 2 * n**3 / (time.perf_counter() - began)
    del x, y
    torch.cuda.empty_cache()
    return rate


def step(a):
    """Steps of 16 rows of 512 tokens: 8k."""
    model, result = checkpoint(a), {}
    rows = rows_file(a, "equal", a.batch, 6, a.tokens)
    for name, more in (("bf16", []), ("nf4", ["--base", "nf4"])):
        if name == "nf4" and a.no_nf4:
            continue
        f = figures(train(a, model, rows, flags_of(a.batch, 6) + more, "bf16"), 2, a.batch)
        f["tflops"] = f["tokens_s"] * flops_a_token(a) / 1e12
        result[name] = f
        say(f"step, {name}: {json.dumps(f)}")
    result["bf16_rate_tflops"] = bf16_rate(a) / 1e12
    result["share"] = result["bf16"]["tflops"] / result["bf16_rate_tflops"]
    goal("share", result["share"])
    return result, []


def goal(name, got):
    say(f"goal, {name}: {got:.2f} of {GOALS[name]}: {'reached' if got >= GOALS[name] else 'missed'}")


def side(a):
    """PEFT and lora-train in turn, in processes of their own."""
    model, result, wrong = checkpoint(a), {}, []
    for name, tokens, batch in (("like BioInstruct", None, a.batch * 3), ("equal rows", a.tokens, a.batch)):
        rows = rows_file(a, name.replace(" ", "-"), batch, 6, tokens)
        spec = {"model": model, "rows": rows, "batch": batch, "steps": 6, "device": a.device}
        with Card(a) as card:
            began = time.time()
            out = subprocess.run([sys.executable, os.path.abspath(__file__), "--worker", json.dumps(spec)], capture_output=True, text=True,
                                 timeout=a.patience)
        if out.returncode:
            raise RuntimeError(out.stderr[-3000:])
        theirs = json.loads(out.stdout.strip().splitlines()[-1])
        theirs.update(first=theirs["ended"] - began, peak_mib=card.peak())
        ours = train(a, model, rows, flags_of(batch, 6), "bf16")
        p, o = figures(theirs, 2, batch), figures(ours, 2, batch)
        result[name] = {"PEFT": p, "lora-train": o, "times": o["samples_s"] / p["samples_s"]}
        result[name]["PEFT"]["parts"] = theirs["parts"]
        say(f"side, {name}: {json.dumps(result[name])}")
        goal(name, result[name]["times"])
        if not abs(o["first_loss"] - p["first_loss"]) <= 0.01 * p["first_loss"]:
            wrong.append(f"{name}: the first loss is {o['first_loss']}, PEFT's {p['first_loss']}")
    return result, wrong


def worker(spec):
    import torch
    from transformers import AutoModelForCausalLM
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.bfloat16, attn_implementation="sdpa").to(spec["device"])
    model.config.use_cache = False
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS), autocast_adapter_dtype=False)
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=3e-4)
    rows, steps, ended, parts = [json.loads(line) for line in open(spec["rows"])], [], None, 1

    def backward(part, labels):
        """The gradients of some rows of a step that has so many labels, and their share of its loss."""
        width = max(len(r["input_ids"]) for r in part)
        pad = lambda key, v: torch.tensor([r[key] + [v] * (width - len(r[key])) for r in part], device=spec["device"])
        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in part], device=spec["device"])
        loss = model(input_ids=pad("input_ids", 0), labels=pad("labels", MASKED), attention_mask=mask).loss * (labels_of(part) / labels)
        loss.backward()
        return loss.detach()

    labels_of = lambda part: sum(x != MASKED for r in part for x in r["labels"][1:])
    for s in range(spec["steps"]):
        batch = rows[s * spec["batch"]:(s + 1) * spec["batch"]]
        began = time.perf_counter()
        while True:
            size = -(-len(batch) // parts)
            try:
                loss = sum(backward(batch[i:i + size], labels_of(batch)) for i in range(0, len(batch), size))
                break
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                parts *= 2
            optimizer.zero_grad()
            torch.cuda.empty_cache()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = float(loss)  # waits for the card
        steps.append({"seconds": time.perf_counter() - began, "loss": value, "tokens": sum(len(r["input_ids"]) for r in batch)})
        ended = ended or time.time()
    print(json.dumps({"steps": steps, "ended": ended, "parts": parts}))


def leak(a):
    """The card's memory over many steps: it may not grow after the first tenth of them."""
    directory = os.path.join("testdata", "golden", "odd-widths")
    flags = ["--adapter", os.path.join(directory, "adapter_init"), "--per-device-train-batch-size", "4", "--max-steps", str(a.leak_steps), "--learning-rate", "1e-5"]
    got = train(a, os.path.join(directory, "model"), os.path.join(directory, "rows.jsonl"), flags, "bf16")
    seen = [m for _, m in got["memory"]]
    settled = seen[len(seen) // 3:-2] or seen
    result = {"steps": len(got["steps"]), "seconds": sum(s["seconds"] for s in got["steps"]), "mib": settled}
    return result, [f"the card's memory went from {settled[0]} to {max(settled)} MiB"] if max(settled) > settled[0] + 8 else []


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lora-train", required=True, metavar="PATH")
    p.add_argument("--tests", default="", metavar="PATH", help="the binary of the tests of internal/backend/cuda")
    p.add_argument("--out", required=True, metavar="DIR")
    p.add_argument("--work", default="", metavar="DIR", help="where the checkpoint goes; without it a directory for temporary files")
    p.add_argument("--device", default="cuda")
    p.add_argument("--parts", default=",".join(PARTS))
    p.add_argument("--rows", metavar="FILE", help="real rows, {input_ids, labels} a line, for side")
    p.add_argument("--minutes", type=float, default=8)
    p.add_argument("--patience", type=float, default=300)
    p.add_argument("--layers", type=int, default=32)
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--vocab", type=int, default=32000)
    p.add_argument("--batch", type=int, default=16, help="rows of --tokens tokens in a step")
    p.add_argument("--tokens", type=int, default=512)
    p.add_argument("--leak-steps", type=int, default=1000)
    p.add_argument("--no-nf4", action="store_true", help="leave nf4 out: quantising 7B takes a minute or two of 16 cores")
    a = p.parse_args()
    a.lora_train, a.tests = os.path.abspath(a.lora_train), a.tests and os.path.abspath(a.tests)
    os.makedirs(a.out, exist_ok=True)
    made = not a.work
    a.work = os.path.abspath(a.work or tempfile.mkdtemp())
    os.makedirs(a.work, exist_ok=True)
    began, wrong = time.time(), []
    cublaslt()
    try:
        for name in a.parts.split(","):
            if time.time() - began > 60 * a.minutes:
                wrong.append(f"{name}: there was no time left")
                continue
            say(name)
            try:
                result, found = globals()[name](a)
            except Exception as e:  # the next part may tell more
                result, found = None, [str(e)]
            wrong += [f"{name}: {f}" for f in found]
            json.dump({"part": name, "result": result, "wrong": found}, open(os.path.join(a.out, name + ".json"), "w"), indent=1)
    finally:
        if made:
            shutil.rmtree(a.work, ignore_errors=True)
    for w in wrong:
        print("WRONG", w)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
    else:
        main()
