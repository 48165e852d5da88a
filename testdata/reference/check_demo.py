#!/usr/bin/env python3
"""Fine-tunes the demo with Transformers + PEFT as testdata/demo/run.yaml says, and shows what it changed.

    python check_demo.py [--demo DIR] [--set key=value ...]

Prints the loss on the held-out rows and the share of their answers that are right to the letter, before and after, by
kind of task, and some answers. It is a check of the demo, not an expected value: rows are shuffled by torch here.
"""

import argparse
import json
import os
import time

import reference as ref
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def settings(path):
    """run.yaml: one key a line, a list in brackets."""
    out = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            key, colon, value = line.split("#")[0].strip().partition(":")
            if colon:
                out[key] = parse(value.strip())
    return out


def parse(value):
    if value.startswith("["):
        return [v.strip() for v in value.strip("[]").split(",")]
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def prompt(row):
    from demo_text import PROMPT, PROMPT_INPUT
    return PROMPT_INPUT.format(row["instruction"], row["input"]) if row["input"] else PROMPT.format(row["instruction"])


def tokenised(tok, row, eos):
    head = tok.encode(prompt(row)).ids
    answer = tok.encode(row["output"], add_special_tokens=False).ids + [eos]
    return {"input_ids": head + answer, "labels": [ref.MASKED] * len(head) + answer}


@torch.no_grad()
def answer(model, tok, row, eos, limit=48):
    ids = tok.encode(prompt(row)).ids
    out = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                         max_new_tokens=limit, do_sample=False, eos_token_id=eos, pad_token_id=eos)[0].tolist()
    return tok.decode(out[len(ids):])


def held_out(model, tok, rows, eos):
    model.eval()
    ids = [tokenised(tok, r, eos) for r in rows]
    with torch.no_grad():
        loss = sum(ref.loss_sum(model, [r]).item() for r in ids) / ref.label_count(ids)
    answers = [answer(model, tok, r, eos) for r in rows]
    return loss, answers, sum(a == r["output"] for a, r in zip(answers, rows)) / len(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--demo", default=os.path.join(HERE, "..", "demo"))
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--show", type=int, default=12)
    args = p.parse_args()
    s = settings(os.path.join(args.demo, "run.yaml"))
    s.update({k: parse(v) for k, v in (x.split("=", 1) for x in args.set)})
    model_dir = os.path.join(args.demo, "model")
    tok = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    eos = ref.read_json(os.path.join(model_dir, "config.json"))["eos_token_id"]
    train, held = (ref.read_json(os.path.join(args.demo, "data", f)) for f in ("train.json", "holdout.json"))
    torch.manual_seed(s["seed"])
    model = get_peft_model(ref.load_base(model_dir), LoraConfig(
        task_type="CAUSAL_LM", r=s["lora_r"], lora_alpha=s["lora_alpha"], target_modules=s["target_modules"]))
    before = held_out(model, tok, held, eos)
    order, batch, rows = [], s["per_device_train_batch_size"], [tokenised(tok, r, eos) for r in train]
    while len(order) < batch * s["max_steps"]:
        order += torch.randperm(len(rows)).tolist()
    plan = [[order[i * batch:(i + 1) * batch]] for i in range(s["max_steps"])]
    start = time.time()
    run = ref.train(model, rows, plan, {
        "learning_rate": s["learning_rate"], "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
        "weight_decay": 0.0, "max_grad_norm": 1.0, "lr_scheduler_type": s.get("lr_scheduler_type", "linear"),
        "warmup_steps": 0, "warmup_ratio": s.get("warmup_ratio", 0.0), "max_steps": s["max_steps"]})
    seconds = time.time() - start
    after = held_out(model, tok, held, eos)
    tokens = sum(len(rows[r]["input_ids"]) for step in plan for b in step for r in b)
    print(f"{s['max_steps']} steps, {tokens} tokens, {seconds:.0f} s; "
          f"training loss {run['losses'][0]:.3f} -> {sum(run['losses'][-10:]) / 10:.3f}")
    print(f"held-out loss {before[0]:.3f} -> {after[0]:.3f}, right {before[2]:.0%} -> {after[2]:.0%}")
    kinds = {}
    for row, got in zip(held, after[1]):
        key = " ".join(row["instruction"].split()[:3])
        kinds.setdefault(key, []).append(got == row["output"])
    print("  ".join(f"{k}: {sum(v)}/{len(v)}" for k, v in sorted(kinds.items())))
    for row, a, b in list(zip(held, before[1], after[1]))[:args.show]:
        print(f"\n{row['instruction']} | {row['input']}\n  wanted {row['output']!r}\n  before {a!r}\n  after  {b!r}")


if __name__ == "__main__":
    main()
