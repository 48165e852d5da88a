"""LoRA fine-tuning with Transformers + PEFT and with lora-train on the same machine, model and rows, in turn.

    python side_by_side.py --model DIR --data bioinstruct.json --lora-train ./lora-train [--cases random,equal256] [--runs 3]

Needs torch, transformers, peft and tokenizers; the case nf4 needs bitsandbytes as well (--nf4-python names an interpreter
that has it). DIR is a LLaMA checkpoint with a tokenizer.json; 7B's width with 4 layers fits both in 16 GiB. FILE is
BioInstruct's JSON array.

Both sides train on the very same tokens: the rows of a case are made once, with the model's own tokenizer and Alpaca's
template, cut at --max-length, the loss on the response, and given to both already tokenised and in the same order. The loss
of the first step must agree (a new adapter changes nothing, so it is the base's), or the script ends with an error. Both run
in processes of their own, on all cores, one after the other: PEFT, lora-train, PEFT, lora-train ... Warm steps do not
count; figures are medians of the runs.

  random      real rows in random order, q_proj and v_proj, rank 16, bf16 throughout, sdpa: PEFT's best mode on a CPU
  unshared    the same with lora-train --no-share-prefixes
  sorted      PEFT on batches of rows of similar length (the least padding), lora-train on rows in random order and with
              --group-by-prefix: other rows, so that only tokens/s compare
  equal256    rows of 256 tokens that share nothing, all with a label
  f32equal    rows of 128 tokens, float32
  f32random   random, float32
  all-linear  random, all seven linears
  nf4         equal256 on a base in NF4 with double quantisation: bitsandbytes against --base nf4
"""
import argparse, json, os, random, statistics, subprocess, sys, tempfile, threading, time

HEAD = "Below is an instruction that describes a task"
INPUT = HEAD + (", paired with an input that provides further context. Write a response that appropriately completes the request."
                "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n")
NO_INPUT = HEAD + ". Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
NO_INPUTS = ("", "<noinput>", "n/a", "none")
MASKED = -100
POOL = 64  # batches that rows are sorted by length within, as in Transformers' group_by_length
AGREE = 0.01  # relative distance of the losses of the first step
QV = ["q_proj", "v_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name: rows, PEFT's mode, targets, warm and measured steps, lora-train's variants {name: flags}
CASES = {
    "random": ("random", "bf16", QV, 2, 3, {"lora-train": []}),
    "unshared": ("random", "bf16", QV, 2, 3, {"lora-train --no-share-prefixes": ["--no-share-prefixes"]}),
    "sorted": ("sorted", "bf16", QV, 2, 3, {"lora-train, random order": [], "lora-train --group-by-prefix": ["--group-by-prefix"]}),
    "equal256": (256, "bf16", QV, 2, 3, {"lora-train": []}),
    "f32equal": (128, "f32", QV, 1, 2, {"lora-train": []}),
    "f32random": ("random", "f32", QV, 1, 2, {"lora-train": []}),
    "all-linear": ("random", "bf16", ALL, 1, 2, {"lora-train": []}),
    "nf4": (256, "nf4", QV, 1, 2, {"lora-train --base nf4": ["--base", "nf4"]}),
}


def peft(spec):
    """The worker: one PEFT run as spec says; prints a line of JSON."""
    import torch
    from transformers import AutoModelForCausalLM
    from peft import LoraConfig, get_peft_model
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    mode, extra = spec["mode"], {}
    if mode == "nf4":
        from transformers import BitsAndBytesConfig
        extra = dict(device_map="cpu", quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16))
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32 if mode == "f32" else torch.bfloat16,
                                                 attn_implementation="sdpa", **extra)
    model.config.use_cache = False
    config = LoraConfig(r=spec["rank"], lora_alpha=2 * spec["rank"], lora_dropout=0.0, target_modules=spec["targets"])
    model = get_peft_model(model, config, autocast_adapter_dtype=False)
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=spec["lr"])
    rows = [json.loads(line) for line in open(spec["rows"])]
    steps = []
    for s in range(spec["steps"]):
        batch = rows[s * spec["batch"]:(s + 1) * spec["batch"]]
        width = max(len(r["input_ids"]) for r in batch)
        pad = lambda key, value: torch.tensor([r[key] + [value] * (width - len(r[key])) for r in batch])
        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (width - len(r["input_ids"])) for r in batch])
        began = time.perf_counter()
        loss = model(input_ids=pad("input_ids", 0), labels=pad("labels", MASKED), attention_mask=mask).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"seconds": time.perf_counter() - began, "loss": float(loss.detach()), "ended": time.time(),
                      "tokens": sum(len(r["input_ids"]) for r in batch), "padded": width * len(batch)})
    print(json.dumps({"steps": steps, "torch": torch.__version__}))


def run(command, cwd, watch=None):
    """Runs a command; returns its output, when it began, its peak resident memory in bytes, and when watch had a line."""
    first = []
    began = time.time()
    with open(os.path.join(cwd, "stderr"), "w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=cwd, text=True)

    def wait_for_line():
        while process.returncode is None and not first:
            try:
                if "\n" in open(watch).read():
                    first.append(time.time())
            except OSError:
                pass
            time.sleep(0.01)

    if watch:
        threading.Thread(target=wait_for_line, daemon=True).start()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nended with status {process.returncode}:\n{open(os.path.join(cwd, 'stderr')).read()[-4000:]}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return output, began, peak, first


def run_peft(a, rows, mode, targets, steps):
    spec = {"model": a.model, "rows": rows, "mode": mode, "targets": targets, "steps": steps, "batch": a.batch, "rank": a.rank, "lr": a.lr}
    python = a.nf4_python if mode == "nf4" else sys.executable
    with tempfile.TemporaryDirectory(dir=a.work) as cwd:
        output, began, peak, _ = run([python, os.path.abspath(__file__), "--worker", json.dumps(spec)], cwd)
    got = json.loads(output.strip().splitlines()[-1])
    return {"steps": got["steps"], "peak": peak, "first": got["steps"][0]["ended"] - began, "version": got["torch"]}


def run_ours(a, rows, mode, targets, steps, flags):
    with tempfile.TemporaryDirectory(dir=a.work) as cwd:
        out = os.path.join(cwd, "out")
        events = os.path.join(out, "events.jsonl")
        command = [a.lora_train, "--model", a.model, "--data", rows, "--out", out, "--max-steps", str(steps),
                   "--per-device-train-batch-size", str(a.batch), "--lora-r", str(a.rank), "--lora-alpha", str(2 * a.rank),
                   "--target-modules", ",".join(targets), "--learning-rate", str(a.lr), "--lr-scheduler-type", "constant",
                   "--compute", "f32" if mode == "f32" else "bf16", "--cache-dir", os.path.join(a.work, "cache")] + flags
        if "--group-by-prefix" not in flags:
            command.append("--no-shuffle")
        _, began, peak, first = run(command, cwd, events)
        done = [json.loads(line) for line in open(events)]
    return {"steps": [{k: s[k] for k in ("seconds", "loss", "tokens")} for s in done], "peak": peak,
            "first": (first[0] if first else time.time()) - began}


def figures(results, warm, batch):
    """The medians over runs of what one side reached."""
    each = []
    for r in results:
        steps = r["steps"][warm:]
        seconds = sum(s["seconds"] for s in steps)
        each.append({"samples_s": batch * len(steps) / seconds, "tokens_s": sum(s["tokens"] for s in steps) / seconds,
                     "padded_tokens_s": sum(s.get("padded", s["tokens"]) for s in steps) / seconds, "peak_gib": r["peak"] / 2**30,
                     "first_step_s": r["first"], "before_first_step_s": r["first"] - r["steps"][0]["seconds"],
                     "first_loss": r["steps"][0]["loss"]})
    return {k: statistics.median(e[k] for e in each) for k in each[0]}


class Rows:
    """Makes the files of rows, once for each shape."""

    def __init__(self, a):
        from tokenizers import Tokenizer
        self.a, self.made = a, {}
        self.tokenizer = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
        self.config = json.load(open(os.path.join(a.model, "config.json")))
        self.data = json.load(open(a.data))
        random.Random(a.seed).shuffle(self.data)

    def special(self, name):
        v = self.config[name]
        return v[0] if isinstance(v, list) else v

    def encode(self, row):
        text = row.get("input", "").strip()
        prompt = (NO_INPUT if text.lower() in NO_INPUTS else INPUT).format(instruction=row["instruction"], input=text)
        ids = [self.special("bos_token_id")] + self.tokenizer.encode(prompt, add_special_tokens=False).ids
        answer = self.tokenizer.encode(row["output"], add_special_tokens=False).ids + [self.special("eos_token_id")]
        n = self.a.max_length
        return {"input_ids": (ids + answer)[:n], "labels": ([MASKED] * len(ids) + answer)[:n]}

    def real(self, n):
        rows = []
        for row in self.data:
            if len(rows) == n:
                break
            r = self.encode(row)
            if any(l != MASKED for l in r["labels"]):
                rows.append(r)
        if len(rows) < n:
            sys.exit(f"{self.a.data} has {len(rows)} rows with a label, {n} are needed")
        return rows

    def equal(self, n, tokens):
        """Rows of running text, cut anywhere: each begins otherwise, and all of it is learnt."""
        stream, rows = [], []
        for row in self.data:
            text = "\n".join(row[k] for k in ("instruction", "input", "output") if row.get(k))
            stream += self.tokenizer.encode(text, add_special_tokens=False).ids
            while len(stream) >= tokens and len(rows) < n:
                rows.append({"input_ids": stream[:tokens], "labels": stream[:tokens]})
                stream = stream[tokens:]
        return rows

    def file(self, shape, steps):
        """The path of the rows of a shape: "random", "sorted", "pool" or a number of tokens."""
        key = (shape, steps)
        if key not in self.made:
            n = self.a.batch * steps
            if isinstance(shape, int):
                rows = self.equal(n, shape)
            elif shape == "random":
                rows = self.real(n)
            else:
                rows = self.real(self.a.batch * POOL)
                if shape == "sorted":
                    rows.sort(key=lambda r: -len(r["input_ids"]))
                    batches = [rows[i:i + self.a.batch] for i in range(0, len(rows), self.a.batch)]
                    random.Random(self.a.seed).shuffle(batches)
                    rows = sum(batches, [])[:n]
            path = os.path.join(self.a.work, f"{shape}-{steps}.jsonl")
            with open(path, "w") as f:
                for r in rows:
                    f.write(json.dumps(r) + "\n")
            self.made[key] = path
        return self.made[key]


def jobs(cases):
    """Cases that differ in lora-train's flags alone share PEFT's runs."""
    list_ = []
    for name in cases:
        shape, mode, targets, warm, steps, variants = CASES[name]
        same = [j for j in list_ if (j["shape"], j["mode"], j["targets"]) == (shape, mode, targets)]
        if same:
            same[0]["name"] += " + " + name
            same[0]["variants"] = same[0]["variants"] | variants
        else:
            list_.append({"name": name, "shape": shape, "mode": mode, "targets": targets, "warm": warm, "steps": steps, "variants": dict(variants)})
    return list_


def check(case, who, ours, theirs):
    """Ends the script where the losses of the first step do not agree."""
    a, b = ours["steps"][0]["loss"], theirs["steps"][0]["loss"]
    say(f"  first loss: PEFT {b:.4f}, {who} {a:.4f}")
    if not abs(a - b) <= AGREE * abs(b):
        sys.exit(f"{case}: the losses of the first step differ by more than {AGREE:.0%}: {who} {a}, PEFT {b}. They do not compute the same.")


def say(text):
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def measure(a, rows, job):
    warm = job["warm"] if a.warm is None else a.warm
    steps = job["steps"] if a.steps is None else a.steps
    total, results = warm + steps, {"PEFT": []} | {v: [] for v in job["variants"]}
    path = rows.file(job["shape"], total)
    for i in range(a.runs):
        say(f"{job['name']}, run {i + 1} of {a.runs}: PEFT, {total} steps")
        theirs = run_peft(a, path, job["mode"], job["targets"], total)
        results["PEFT"].append(theirs)
        for who, flags in job["variants"].items():
            say(f"{job['name']}, run {i + 1} of {a.runs}: {who}")
            own = rows.file({"sorted": "pool" if "--group-by-prefix" in flags else "random"}.get(job["shape"], job["shape"]), total)
            ours = run_ours(a, own, job["mode"], job["targets"], total, flags)
            results[who].append(ours)
            if own == path:
                check(job["name"], who, ours, theirs)
    found = {who: figures(r, warm, a.batch) for who, r in results.items()}
    return {"case": job["name"], "same_rows": job["shape"] != "sorted", "warm": warm, "steps": steps, "medians": found, "runs": results}


def table(reports):
    """The medians as a table in Markdown."""
    lines = ["| case | who | samples/s | real tokens/s | with padding | x PEFT | peak GiB | x PEFT | end of step 1, s | before it, s |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for r in reports:
        theirs = r["medians"]["PEFT"]
        for who, m in r["medians"].items():
            samples = f"{m['samples_s']:.2f}" if r["same_rows"] else "-"
            lines.append(f"| {r['case']} | {who} | {samples} | {m['tokens_s']:.1f} | {m['padded_tokens_s']:.1f} | {m['tokens_s'] / theirs['tokens_s']:.2f} "
                         f"| {m['peak_gib']:.2f} | {m['peak_gib'] / theirs['peak_gib']:.2f} | {m['first_step_s']:.1f} | {m['before_first_step_s']:.1f} |")
    return "\n".join(lines)


def has_bitsandbytes(python):
    return subprocess.run([python, "-c", "import bitsandbytes"], capture_output=True).returncode == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, metavar="DIR")
    p.add_argument("--data", required=True, metavar="FILE")
    p.add_argument("--lora-train", required=True, metavar="PATH", help="the built command")
    p.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--warm", type=int, help="steps that do not count (2; 1 in the slow cases)")
    p.add_argument("--steps", type=int, help="steps that count (3; 2 in the slow cases)")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--lr", type=float, default=3e-4)
    p.add_argument("--max-length", type=int, default=512)
    p.add_argument("--seed", type=int, default=0, help="of the order of the rows")
    p.add_argument("--nf4-python", default=sys.executable, metavar="PATH", help="an interpreter that has bitsandbytes")
    p.add_argument("--out", metavar="NAME", help="write NAME.md and NAME.json")
    a = p.parse_args()
    cases = a.cases.split(",")
    if unknown := [c for c in cases if c not in CASES]:
        p.error(f"unknown cases {', '.join(unknown)}; there are {', '.join(CASES)}")
    if "nf4" in cases and not has_bitsandbytes(a.nf4_python):
        say(f"nf4 is left out: {a.nf4_python} has no bitsandbytes; --nf4-python names another interpreter")
        cases.remove("nf4")
    for name in ("model", "data", "lora_train"):
        setattr(a, name, os.path.abspath(getattr(a, name)))
    reports = []
    with tempfile.TemporaryDirectory() as a.work:
        rows = Rows(a)
        for job in jobs(cases):
            reports.append(measure(a, rows, job))
            if a.out: # what there is, should a later case fail
                open(a.out + ".json", "w").write(json.dumps(reports, indent=1) + "\n")
                open(a.out + ".md", "w").write(table(reports) + "\n")
            print(table(reports[-1:]), flush=True)
    print("\n" + table(reports))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        peft(json.loads(sys.argv[2]))
    else:
        main()
