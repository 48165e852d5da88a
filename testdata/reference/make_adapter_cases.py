"""A small adapter as PEFT saves it, for lora/testdata/peft: the same in both formats.

    OMP_NUM_THREADS=1 python make_adapter_cases.py     # peft 0.21.2, transformers 5.23

It adapts q_proj and lm_head of a decoder with one layer and trains the embedding whole, so the files also hold the
frozen lm_head.base_layer.weight, which loading must skip.
"""

import os
import shutil
import tempfile

import torch
from make_match_cases import ROOT, decoder
from peft import LoraConfig, get_peft_model

OUT = os.path.join(ROOT, "lora", "testdata", "peft")


def main():
    torch.manual_seed(0)
    model = get_peft_model(decoder(1), LoraConfig(
        task_type="CAUSAL_LM", r=2, lora_alpha=3, target_modules=["q_proj", "lm_head"], modules_to_save=["embed_tokens"],
        rank_pattern={"lm_head": 3}))
    for n, p in model.named_parameters():
        if "lora_" in n or "modules_to_save" in n:
            torch.nn.init.normal_(p)
    shutil.rmtree(OUT, ignore_errors=True)
    os.makedirs(OUT)
    with tempfile.TemporaryDirectory() as d:
        for safe, name in (True, "adapter_model.safetensors"), (False, "adapter_model.bin"):
            model.save_pretrained(d, safe_serialization=safe)
            shutil.copy(os.path.join(d, name), OUT)
        shutil.copy(os.path.join(d, "adapter_config.json"), OUT)


if __name__ == "__main__":
    main()
