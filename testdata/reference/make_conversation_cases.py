"""Writes testdata/conversations.json: what Transformers learns of conversations, with the tokenizers of testdata/tokenizer.

    python make_conversation_cases.py

Needs transformers. A case is a row {"messages", "tools"} with the ids and the assistant's mask that apply_chat_template
returns for it, in a template of our own that says by generation blocks what is learnt. The tests read the file only.
"""

import json
import os
import random

import transformers
from transformers import PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "conversations.json")

TEMPLATES = {
    # As Llama 3 has it: the answer follows a special token and two line ends.
    "headers": """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '\\n\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content | trim + '<|eot_id|>' }}{% endgeneration %}
    {%- else %}
        {{- message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}""",
    # As Llama 2 has it: the answer follows text, and a space is its first character.
    "brackets": """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ ' ' + message.content | trim + ' ' + eos_token }}{% endgeneration %}
    {%- elif message.role == 'system' %}
        {{- bos_token + '<<SYS>>\\n' + message.content + '\\n<</SYS>>' }}
    {%- else %}
        {{- bos_token + '[INST] ' + message.content | trim + ' [/INST]' }}
    {%- endif %}
{%- endfor %}""",
    # The answer follows a special token at once, and its end is the line's end.
    "direct": """{%- if tools %}{{ 'Tools: ' + tools | tojson + '\\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- bos_token }}
        {%- generation %}{{ message.content + eos_token + '\\n' }}{% endgeneration %}
    {%- else %}
        {{- message.role + ': ' + message.content + '\\n' }}
    {%- endif %}
{%- endfor %}""",
}

# What special tokens each tokenizer has for the templates. sp does without "direct": it puts a dummy space in front of the
# line end after </s>, whose place is the line end's, and Transformers then learns the space and masks the line end.
TOKENIZERS = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ["headers", "direct"]),
    "sp": ("<s>", "</s>", ["brackets", "headers"]),
    "metaspace": ("<s>", "</s>", ["brackets", "direct"]),
}

WORDS = [
    "aspirin", "Which gene", " is", "mutated", "?", "\n", "\n\n", "  ", " p < 0.05", "Größe", "120/80 mmHg", "it's", "1,024", "β-blocker",
    "<b>bold</b>", "### Response:", "[INST]", "<|eot_id|>", "</s>", "<s>", "assistant", "\t", "🧬", "中文", "{{ x }}", "a", ".", "<|start_header_id|>",
]
TOOLS = [{"type": "function", "function": {"name": "lab_value", "parameters": {"type": "object", "properties": {"name": {"type": "string"}}}}}]


def text(rng):
    words = "".join(rng.choice(WORDS) + rng.choice(["", "", " "]) for _ in range(rng.randrange(1, 9)))
    return words if words.strip() else "none"


def conversation(rng):
    messages = [{"role": "system", "content": text(rng)}] if rng.random() < 0.3 else []
    for _ in range(rng.randrange(1, 4)):
        messages += [{"role": "user", "content": text(rng)}, {"role": "assistant", "content": text(rng)}]
    if rng.random() < 0.2:
        messages.append({"role": "user", "content": text(rng)})
    return messages


def main():
    rng = random.Random(4)
    cases = []
    for name, (bos, eos, templates) in TOKENIZERS.items():
        tok = PreTrainedTokenizerFast(tokenizer_file=os.path.join(HERE, "..", "tokenizer", name + ".json"), bos_token=bos, eos_token=eos)
        for template in templates:
            for _ in range(25):
                row = {"messages": conversation(rng)}
                if template == "direct" and rng.random() < 0.3:
                    row["tools"] = TOOLS
                out = tok.apply_chat_template(
                    row["messages"], tools=row.get("tools"), chat_template=TEMPLATES[template],
                    tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
                )
                ids = list(out["input_ids"])
                cases.append({
                    "tokenizer": name, "template": template, "row": row, "input_ids": ids,
                    "labels": [i if m else -100 for i, m in zip(ids, out["assistant_masks"])],
                })
    file = {"transformers": transformers.__version__, "templates": TEMPLATES,
            "tokenizers": {n: {"bos_token": b, "eos_token": e} for n, (b, e, _) in TOKENIZERS.items()}, "cases": cases}
    with open(OUT, "w", encoding="utf-8") as f:
        json.dump(file, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    print(len(cases), "cases")


main()
