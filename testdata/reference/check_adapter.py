"""Loads an adapter with PEFT and fails on any warning but the one that PEFT gives for its own, of tied models.

    OMP_NUM_THREADS=1 python check_adapter.py MODEL_DIR ADAPTER_DIR...

Prints how many modules it adapts, and the loss of a fixed row with and without it.
"""

import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch
import transformers
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for adapter in sys.argv[2:]:
        base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
        ids = torch.arange(3, 27)[None] % base.config.vocab_size
        before = base(input_ids=ids, labels=ids).loss.item()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=FutureWarning)  # of PEFT's own use of Transformers
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True` and a tied layer is part")
            model = PeftModel.from_pretrained(base, adapter)
        saved = load_file(os.path.join(adapter, "adapter_model.safetensors"))
        state = model.state_dict()
        for key, value in saved.items():
            there = [k for k in state if k.replace(".default", "").replace(".modules_to_save", "") == key]
            assert len(there) == 1 and torch.equal(state[there[0]], value), key
        n = sum(isinstance(m, LoraLayer) for m in model.modules())
        print(f"{adapter}: {n} modules, {len(saved)} tensors, loss {before:.6f} -> {model(input_ids=ids, labels=ids).loss.item():.6f}")


if __name__ == "__main__":
    main()
