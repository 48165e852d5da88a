#!/usr/bin/env python3
"""Makes model/testdata/generate_cases.json: what Transformers generates with beams, and the log-likelihoods it gives to
continuations, from the demo's model in float32.

    python make_generate_cases.py

Prompts are pieces of the demo's rows, so that the model has something to go on. Stop tokens are cut off the answers.
"""

import json
import os
import random

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "demo")
OUT = os.path.join(HERE, "..", "..", "model", "testdata", "generate_cases.json")


def generate(model, prompt, beams, penalty, stop, new):
    config = GenerationConfig(num_beams=beams, do_sample=False, length_penalty=penalty, eos_token_id=stop, pad_token_id=0,
                              max_new_tokens=new)
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[0, len(prompt):].tolist()
    for i, t in enumerate(out):
        if t in stop:
            return out[:i]
    return out


def likelihoods(model, prompt, options):
    out = []
    for o in options:
        logits = model(torch.tensor([prompt + o])).logits[0, len(prompt) - 1:-1].double()
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(o)[:, None])
        out.append({"sum": float(chosen.sum()), "greedy": bool((logits.argmax(-1) == torch.tensor(o)).all())})
    return out


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(os.path.join(DEMO, "model"), dtype=torch.float32)
    tokenizer = Tokenizer.from_file(os.path.join(DEMO, "model", "tokenizer.json"))
    rows = json.load(open(os.path.join(DEMO, "data", "train.json"), encoding="utf-8"))
    rng = random.Random(7)
    eos, bos = model.config.eos_token_id, model.config.bos_token_id
    period = tokenizer.encode("a. b. c.", add_special_tokens=False).ids[1]
    beams, options = [], []
    for i in range(48):
        row = rng.choice(rows)
        text = tokenizer.encode(row["instruction"] + " " + row["input"] + " " + row["output"], add_special_tokens=False).ids
        prompt = [bos] + text[:rng.randint(3, max(4, len(text) - 1))]
        n, penalty, stop = rng.choice([2, 3, 4, 5]), rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, -1.0]), [[eos], [eos, period]][i % 2]
        new = rng.choice([1, 5, 12, 24])
        beams.append({"prompt": prompt, "beams": n, "length_penalty": penalty, "stop": stop, "max_new_tokens": new,
                      "answer": generate(model, prompt, n, penalty, stop, new)})
        choices = [text[k:k + rng.randint(1, 6)] for k in (rng.randrange(len(text)) for _ in range(4))]
        choices.append(model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=3, num_beams=1, eos_token_id=None,
                                      pad_token_id=0, attention_mask=torch.ones(1, len(prompt), dtype=torch.long))[0, len(prompt):].tolist())
        options.append({"prompt": prompt, "options": choices, "likelihoods": likelihoods(model, prompt, choices)})
    with open(OUT, "w", encoding="utf-8") as f:
        json.dump({"beams": beams, "options": options}, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
