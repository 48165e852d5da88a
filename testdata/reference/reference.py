"""What the reference scripts share: files, rows, PEFT models and the training loop.

The loop is that of Transformers' Trainer, written out: a window of micro-batches, its label tokens counted before the
first forward, sums of token losses divided by that count, clipping, AdamW, the schedule.
"""

import json
import math
import os
import shutil
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import peft
import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, get_scheduler

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

VERSIONS = {m.__name__: m.__version__.split("+")[0] for m in (torch, transformers, peft)}
MASKED = -100


def read_json(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def read_rows(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, separators=(",", ":")) + "\n" for r in rows)


def write_json(path, value):
    """One key a line; an inner dictionary has one key a line too, the plan of the steps one step a line."""
    def text(key, v):
        if key == "steps":
            return "[\n  " + ",\n  ".join(json.dumps(x, separators=(",", ":")) for x in v) + "\n ]"
        if isinstance(v, dict) and v:
            return "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {json.dumps(x)}" for k, x in v.items()) + "\n }"
        return json.dumps(v)

    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {text(k, v)}" for k, v in value.items()) + "\n}\n")


def empty_dir(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)


# ---------------------------------------------------------------- models and adapters

def load_base(path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()


def load_adapter(model_dir, adapter_dir, dtype=torch.float32):
    return PeftModel.from_pretrained(load_base(model_dir, dtype), adapter_dir, is_trainable=True)


def trainable(model):
    """Trained parameters by their names in adapter_model.safetensors."""
    out = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            name = name.replace(".modules_to_save.default", "").replace(".default", "")
            out[name[:-7] if name.endswith("magnitude_vector.weight") else name] = p
    return out


def fresh_adapter(base, lora, seed):
    """PEFT's own A; B and the modules trained in full away from their start, so that every gradient says something."""
    torch.manual_seed(seed)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **lora))
    g = torch.Generator().manual_seed(seed + 1)
    for name, p in sorted(trainable(model).items()):
        noise = torch.randn(p.shape, generator=g)
        if "lora_B" in name:
            p.data.copy_(0.1 * noise)
        elif "lora_" not in name:
            p.data.add_(0.05 * noise)
    return model


def save_adapter(model, path, binary=False):
    """PEFT's files without the card; what depends on the machine or on the hash seed made fixed."""
    empty_dir(path)
    model.save_pretrained(path)
    if os.path.exists(card := os.path.join(path, "README.md")):
        os.remove(card)
    if binary:
        from safetensors.torch import load_file
        file = os.path.join(path, "adapter_model.safetensors")
        torch.save(load_file(file), os.path.join(path, "adapter_model.bin"))
        os.remove(file)
    file = os.path.join(path, "adapter_config.json")
    config = read_json(file)
    config["base_model_name_or_path"] = "model"
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    with open(file, "w", encoding="utf-8") as f:
        f.write(json.dumps(config, indent=2, sort_keys=True))


# ---------------------------------------------------------------- forward and training

@torch.no_grad()
def logits_of(model, rows):
    """[total tokens, vocabulary]: each row alone, without padding, one after another."""
    model.eval()
    return torch.cat([model(input_ids=torch.tensor([r["input_ids"]]), use_cache=False).logits[0] for r in rows])


def label_count(rows):
    return sum(x != MASKED for r in rows for x in r["labels"][1:])


def loss_sum(model, rows):
    """Sum of the token losses of rows padded on the right to one length."""
    n = max(len(r["input_ids"]) for r in rows)
    pad = lambda xs, v: xs + [v] * (n - len(xs))
    ids = torch.tensor([pad(r["input_ids"], 0) for r in rows])
    mask = torch.tensor([pad([1] * len(r["input_ids"]), 0) for r in rows])
    labels = torch.tensor([pad(r["labels"], MASKED) for r in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=MASKED, reduction="sum")


def step_plan(rows, batch, accumulation, steps):
    """Rows in file order; an epoch is cut into batches, batches into windows; neither crosses the end of an epoch."""
    batches = [list(range(i, min(i + batch, rows))) for i in range(0, rows, batch)]
    windows = [batches[i:i + accumulation] for i in range(0, len(batches), accumulation)]
    return [windows[s % len(windows)] for s in range(steps)]


def warmup_steps(t):
    return t["warmup_steps"] or math.ceil(t["max_steps"] * t["warmup_ratio"])


def train(model, rows, plan, t, around=None):
    """Trains in place. around: a function that gives the context of every forward pass (autocast)."""
    if t.get("loraplus_lr_ratio"):
        raise ValueError("LoRA+ is not part of these cases")
    params = list(trainable(model).values())
    opt = torch.optim.AdamW(params, lr=t["learning_rate"], betas=(t["adam_beta1"], t["adam_beta2"]),
                            eps=t["adam_epsilon"], weight_decay=t["weight_decay"], foreach=False)
    schedule = get_scheduler(t["lr_scheduler_type"], opt, num_warmup_steps=warmup_steps(t),
                             num_training_steps=t["max_steps"])
    out = {"losses": [], "grad_norms": [], "lrs": [], "label_tokens": [], "grads": None}
    model.train()
    for window in plan:
        count, total = label_count([rows[r] for b in window for r in b]), 0.0
        for batch in window:
            if around:
                with around():
                    loss = loss_sum(model, [rows[r] for r in batch]) / count
            else:
                loss = loss_sum(model, [rows[r] for r in batch]) / count
            loss.backward()
            total += loss.item()
        if out["grads"] is None:
            out["grads"] = {n: p.grad.detach().clone() for n, p in trainable(model).items()}
        norm = torch.nn.utils.clip_grad_norm_(params, t["max_grad_norm"] or float("inf"), foreach=False)
        out["losses"].append(total)
        out["grad_norms"].append(float(norm))
        out["lrs"].append(schedule.get_last_lr()[0])
        out["label_tokens"].append(count)
        opt.step()
        schedule.step()
        opt.zero_grad(set_to_none=False)
    model.eval()
    out["final"] = {n: p.detach().clone() for n, p in trainable(model).items()}
    return out


def worst_relative(got, want):
    """The largest Frobenius distance of two tensors of one name, relative to the second."""
    worst = 0.0
    for k in got:
        a, b = got[k].double(), want[k].double()
        worst = max(worst, ((a - b).norm() / max(b.norm().item(), 1e-30)).item())
    return worst


def worst_relative_number(got, want):
    return max(abs(a - b) / max(abs(b), 1e-30) for a, b in zip(got, want))


def short(x):
    return float(f"{x:.3g}")
