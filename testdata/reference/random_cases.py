#!/usr/bin/env python3
"""Random reference cases: architectures, adapters, rows and schedules drawn by seed, in the format of testdata/golden.

    python random_cases.py OUT FIRST LAST
    BIOLORA_CASES=OUT go test -run TestGivenGoldens -v ./model ./train

They are not kept: they are for looking for differences that nobody thought of. float32_against_float64 in a case.json
tells what of a difference is PyTorch's own rounding. Cases that PEFT refuses, and those with a window without any label
(a loss of 0 / 0), are left out.
"""

import math
import os
import random
import shutil
import sys

import make_golden

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rope(r):
    theta = r.choice([500.0, 10000.0, 500000.0])
    kind = r.choice(["default", "default", "linear", "llama3", "yarn", "yarn"])
    if kind == "default":
        return {"rope_theta": theta}
    p = {"rope_type": kind, "factor": r.choice([1.5, 2.0, 4.0, 8.0])}
    if kind == "llama3":
        p.update(low_freq_factor=1.0, high_freq_factor=r.choice([3.0, 4.0]),
                 original_max_position_embeddings=r.choice([16, 40]))
    if kind == "yarn":
        p["original_max_position_embeddings"] = r.choice([16, 32])
        if r.random() < 0.4:
            p.update(beta_fast=r.choice([16, 32]), beta_slow=r.choice([1, 2]))
        if r.random() < 0.3:
            p.update(mscale=1.1, mscale_all_dim=0.7)
        if r.random() < 0.3:
            p["truncate"] = False
    if r.random() < 0.5:
        return {"rope_theta": theta, "rope_scaling": p}
    return {"rope_theta": ..., "rope_parameters": {**p, "rope_theta": theta}}


def config(r):
    heads = r.randint(1, 8)
    c = {"vocab_size": r.choice([37, 53, 97, 130, 257]), "hidden_size": heads * r.choice([3, 4, 5, 6, 8, 11, 12]),
         "intermediate_size": r.choice([17, 33, 50, 63, 96, 131]), "num_hidden_layers": r.randint(1, 3),
         "num_attention_heads": heads, "num_key_value_heads": r.choice([k for k in range(1, heads + 1) if heads % k == 0]),
         "head_dim": 2 * r.choice([1, 2, 3, 4, 5, 7, 8, 9, 12, 16]), "max_position_embeddings": r.choice([64, 128, 300]),
         "rms_norm_eps": r.choice([1e-5, 1e-6]), "tie_word_embeddings": r.random() < 0.35}
    if r.random() < 0.35:
        c.update(architectures=["MistralForCausalLM"], model_type="mistral",
                 sliding_window=r.choice([None, 3, 7, 16, 4096]))
    else:
        c.update(attention_bias=r.random() < 0.3, mlp_bias=r.random() < 0.3)
    return make_golden.llama(**c, **rope(r))


def lora(r, c):
    targets = r.choice(["all-linear", r".*layers\.\d+\.(self_attn\.[qk]_proj|mlp\.down_proj)"]
                       + [r.sample(NAMES, r.randint(1, 7)) for _ in range(4)])
    l = {"r": r.choice([1, 2, 3, 5, 8, 16]), "lora_alpha": r.choice([1, 4, 8, 16, 17]), "target_modules": targets,
         "use_rslora": r.random() < 0.3}
    listed = isinstance(targets, list)
    if listed and r.random() < 0.3:
        l["layers_to_transform"] = [r.randrange(c["num_hidden_layers"])]
    if r.random() < 0.3:
        l["rank_pattern"] = {"q_proj": 4, "mlp.down_proj": 2}
    if r.random() < 0.3:
        l["alpha_pattern"] = {"v_proj": 3, r"layers\.0\..*up_proj": 9}
    if listed and not c["tie_word_embeddings"] and r.random() < 0.2:
        l["target_modules"] = targets + ["lm_head"]
    elif r.random() < 0.25:
        l["modules_to_save"] = r.choice([["lm_head"], ["embed_tokens"], ["lm_head", "embed_tokens"]])
    return l


def case(seed):
    r = random.Random(seed)
    c = config(r)
    lengths = [r.choice([2, 3, 5, 9, 17, 30, 45, 60]) for _ in range(r.randint(3, 11))]
    heads = {}
    for i in range(1, len(lengths)):
        if r.random() < 0.4:
            other = r.randrange(i)
            heads[i] = (other, r.randint(1, min(lengths[i], lengths[other])))
    return {
        "name": f"random-{seed}", "tests": "whatever came", "config": c, "lora": lora(r, c), "seed": 13 * seed + 1,
        "dtype": r.choice(["bfloat16", "float16", "float32"]), "lengths": lengths, "heads": heads, "holes": (1,),
        "masked": [r.randint(0, n) for n in lengths], "shards": r.choice([1, 1, 2]),
        "train": {"per_device_train_batch_size": r.randint(1, 4), "gradient_accumulation_steps": r.choice([1, 1, 2, 3]),
                  "max_steps": r.choice([6, 10]), "learning_rate": r.choice([1e-3, 5e-3]),
                  "lr_scheduler_type": r.choice(["constant", "constant_with_warmup", "linear", "cosine"]),
                  "warmup_steps": r.choice([0, 0, 2]), "warmup_ratio": r.choice([0.0, 0.25]),
                  "weight_decay": r.choice([0.0, 0.05]), "max_grad_norm": r.choice([0.0, 1.0, 0.2]),
                  "adam_beta2": r.choice([0.999, 0.95])},
    }


def main():
    out, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for seed in range(first, last):
        path = os.path.join(out, f"random-{seed}")
        try:
            make_golden.build(path, case(seed))
            losses = make_golden.ref.read_json(os.path.join(path, "case.json"))["expected"]["losses"]
            if not all(map(math.isfinite, losses)):
                raise ValueError("a window has no label")
        except Exception as e:
            shutil.rmtree(path, ignore_errors=True)
            print(f"random-{seed} left out: {type(e).__name__}: {str(e)[:120]}", flush=True)


if __name__ == "__main__":
    main()
