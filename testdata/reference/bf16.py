#!/usr/bin/env python3
"""How far Transformers + PEFT in bfloat16 is from itself in float32, case by case, as one JSON file. Cases that the
file has already and that are not given stay in it.

    python bf16.py [--out FILE] CASE_DIR ...

What "PEFT in bfloat16" means here, and stands under "bf16": the base is loaded with dtype=bfloat16, the adapter as PEFT
then makes it (autocast_adapter_dtype, PEFT's default: A and B in float32; modules_to_save keep the base's bfloat16, and
so do their gradients and AdamW), and nothing else is switched on. "bf16_autocast" is the same inside
torch.autocast("cpu", bfloat16), which is what Trainer's bf16=True adds: A and B are rounded in every product too.

Each has: logits_max_abs, the same rows as expected.safetensors; first_grads_worst_relative, the Frobenius distance of
the worst tensor; losses_worst_relative, the worst step; adapter_final_worst_relative, the worst tensor; and the
logits' root mean square distance, which is steadier than the maximum.
"""

import argparse
import json
import os

import reference as ref
import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def run(case_dir, case, rows, dtype, around=None):
    load = lambda: ref.load_adapter(os.path.join(case_dir, "model"), os.path.join(case_dir, "adapter_init"), dtype)
    probe = [rows[i] for i in case["logits_rows"]]
    if around:
        with around():
            logits = ref.logits_of(load(), probe)
    else:
        logits = ref.logits_of(load(), probe)
    return logits.float(), ref.train(load(), rows, case["steps"], case["train"], around)


def distance(got, want):
    d = (got[0] - want[0]).double()
    a, b = got[1], want[1]
    return {
        "logits_max_abs": ref.short(d.abs().max().item()),
        "logits_rms": ref.short(d.pow(2).mean().sqrt().item()),
        "first_grads_worst_relative": ref.short(ref.worst_relative(a["grads"], b["grads"])),
        "losses_worst_relative": ref.short(ref.worst_relative_number(a["losses"], b["losses"])),
        "adapter_final_worst_relative": ref.short(ref.worst_relative(a["final"], b["final"])),
    }


def measure(case_dir):
    case = ref.read_json(os.path.join(case_dir, "case.json"))
    if case.get("later"):
        return None
    rows = ref.read_rows(os.path.join(case_dir, "rows.jsonl"))
    plain = run(case_dir, case, rows, torch.float32)
    again = ref.worst_relative_number(plain[1]["losses"], case["expected"]["losses"])
    if again > 1e-5:
        raise SystemExit(f"{case_dir}: float32 losses differ from the recorded ones by {again:.1e} relative")
    return {"bf16": distance(run(case_dir, case, rows, torch.bfloat16), plain),
            "bf16_autocast": distance(run(case_dir, case, rows, torch.bfloat16, autocast), plain)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(HERE, "..", "golden", "bf16.json"))
    p.add_argument("case_dirs", nargs="+")
    args = p.parse_args()
    out = ref.read_json(args.out)["cases"] if os.path.exists(args.out) else {}
    for d in args.case_dirs:
        name = os.path.basename(os.path.normpath(d))
        if result := measure(d):
            out[name] = result
            print(name, json.dumps(result), flush=True)
    lines = ",\n".join(f'  {json.dumps(k)}: {{\n   "bf16": {json.dumps(v["bf16"])},\n   '
                       f'"bf16_autocast": {json.dumps(v["bf16_autocast"])}\n  }}' for k, v in sorted(out.items()))
    cpu = torch.backends.cpu.get_cpu_capability()
    with open(args.out, "w", encoding="utf-8") as f:
        f.write(f'{{\n "versions": {json.dumps(ref.VERSIONS)},\n "cpu": {json.dumps(cpu)},'
                f'\n "cases": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
