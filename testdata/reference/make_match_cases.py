"""What PEFT adapts: golden cases for package lora, and for its regular expressions.

    OMP_NUM_THREADS=1 python make_match_cases.py     # peft 0.21.2, transformers 5.23, CPython 3.11

writes lora/testdata/match.json and lora/internal/pyre/testdata/cases.json.

match.json: `modules` are all modules of a decoder with 2 layers; `cases` are configurations on models with `layers`
layers. `targets` maps "r alpha scale" to the linears that got that branch, a linear of layer 3 written "3.q_proj";
`save` lists the modules that are trained whole; `saved` is target_modules as the saved file has it. `error`: PEFT
refuses. `other`: PEFT does what package lora refuses by design (embeddings with a branch, whole training of other
modules, a module that is both, modules_to_save that find nothing).
"""

import json
import os
import random
import re
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils.other import ModulesToSaveWrapper

warnings.simplefilter("ignore")
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HIDDEN, FF, VOCAB = 8, 12, 16


def decoder(layers, tied=False, kind="llama"):
    cls, cfg = {
        "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig),
        "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig),
    }[kind]
    return cls(cfg(hidden_size=HIDDEN, intermediate_size=FF, vocab_size=VOCAB, num_hidden_layers=layers,
                   num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied))


def short(name):
    m = re.fullmatch(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)", name)
    return f"{m[1]}.{m[2]}" if m else name


def run(layers, config, tied=False):
    model = decoder(layers, tied)
    # PEFT looks into its dictionaries in their order; JSON keeps it.
    config = json.loads(json.dumps(config))
    case = {"layers": layers, "config": config}
    if tied:
        case["tied"] = True
    try:
        peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **json.loads(json.dumps(config))))
    except Exception as e:
        case["error"] = f"{type(e).__name__}: {e}"[:120]
        return case
    targets, save, other = {}, [], False
    for name, m in peft.base_model.model.named_modules():
        if isinstance(m, LoraLayer):
            if "default" not in m.lora_A:
                other = True
                continue
            key = f"{m.r['default']} {m.lora_alpha['default']} {m.scaling['default']!r}"
            targets.setdefault(key, []).append(short(name))
        if isinstance(m, ModulesToSaveWrapper):
            save.append(name)
            if name not in ("model.embed_tokens", "lm_head") or isinstance(m.original_module, LoraLayer):
                other = True
    if other or config.get("modules_to_save") and not save:
        case["other"] = True
        return case
    case["targets"], case["save"] = targets, save
    if tied and len(save) == 2:
        emb, head = (peft.base_model.model.get_submodule(s).modules_to_save["default"].weight for s in save)
        case["shared"] = emb is head
    with tempfile.TemporaryDirectory() as d:
        peft.peft_config["default"].save_pretrained(d)
        saved = json.load(open(os.path.join(d, "adapter_config.json")))
        t = saved["target_modules"]
        case["saved"] = sorted(t) if isinstance(t, list) else t
    return case


LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def full(layer, s):
    return f"model.layers.{layer}.{'mlp' if s in LINEARS[4:] else 'self_attn'}.{s}"


FIXED = [
    (2, {}), (2, {"target_modules": ["q_proj", "v_proj"]}), (2, {"target_modules": "all-linear"}),
    (3, {"target_modules": "ALL-Linear"}), (3, {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}),
    (2, {"target_modules": "all-linear", "layers_to_transform": [0]}),
    (2, {"target_modules": "q_proj"}), (2, {"target_modules": r".*\.q_proj"}), (2, {"target_modules": r".*q_proj|lm_head"}),
    (2, {"target_modules": r".*self_attn.*"}), (2, {"target_modules": r"model\.layers\.(?!1\.).*_proj"}),
    (2, {"target_modules": r"(?i).*Q_PROJ"}), (2, {"target_modules": r".*(?i)q_proj"}), (2, {"target_modules": r".*[q_proj"}),
    (2, {"target_modules": r"(.*)\.(\d)\.self_attn\.(q|k)_proj"}), (2, {"target_modules": r".*\.(q|v)_proj$"}),
    (2, {"target_modules": ["mlp.down_proj"]}), (2, {"target_modules": ["own_proj"]}), (2, {"target_modules": ["proj"]}),
    (2, {"target_modules": [".q_proj"]}), (2, {"target_modules": ["Q_PROJ"]}), (2, {"target_modules": [r".*q_proj"]}),
    (2, {"target_modules": ["q_proj", "nothing"]}), (2, {"target_modules": ["nothing"]}), (2, {"target_modules": []}),
    (2, {"target_modules": ["self_attn"]}), (2, {"target_modules": ["norm"]}), (2, {"target_modules": ["act_fn"]}),
    (2, {"target_modules": ["lm_head"]}), (2, {"target_modules": ["q_proj", "lm_head"]}),
    (2, {"target_modules": ["embed_tokens"]}), (2, {"target_modules": ["0"]}), (2, {"target_modules": ["layers"]}),
    (2, {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}),
    (2, {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r".*\.0\..*"}),
    (2, {"target_modules": ["q_proj", "k_proj"], "exclude_modules": ["model.layers.0.self_attn.q_proj"]}),
    (2, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}),
    (2, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["head"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["head"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["model.embed_tokens"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["v_proj"]}),
    (2, {"target_modules": ["q_proj"], "modules_to_save": ["q_proj"]}),
    (2, {"target_modules": ["lm_head"], "modules_to_save": ["lm_head"]}),
    (2, {"target_modules": ["lm_head", "q_proj"], "modules_to_save": ["(lm_)?head"]}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": [1, 3]}), (4, {"target_modules": ["q_proj"], "layers_to_transform": 2}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": []}), (2, {"target_modules": ["q_proj"], "layers_to_transform": [7]}),
    (4, {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [1]}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layer"}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "lay.*s"]}),
    (4, {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "model.layers"}),
    (4, {"target_modules": ["q_proj"], "layers_pattern": "layers"}),
    (4, {"target_modules": [full(0, "q_proj"), "v_proj"], "layers_to_transform": [2]}),
    (12, {"target_modules": ["layers.1.self_attn.q_proj"]}), (12, {"target_modules": ["1.self_attn.q_proj", "v_proj"], "layers_to_transform": [1, 11]}),
    # Twenty names and more are shortened, and then layers_to_transform reaches them.
    (12, {"target_modules": [full(i, s) for i in range(10) for s in ("q_proj", "v_proj")], "layers_to_transform": [0, 1]}),
    (12, {"target_modules": [full(i, s) for i in range(12) for s in ("q_proj", "v_proj")], "layers_to_transform": [0, 1]}),
    (12, {"target_modules": [full(i, s) for i in range(12) for s in ("q_proj", "down_proj")]}),
    (12, {"target_modules": [full(i, s) for i in range(11) for s in ("q_proj", "down_proj")]}),
    (12, {"target_modules": "all-linear"}), (2, {"target_modules": [full(i, s) for i in range(2) for s in LINEARS]}),
    (2, {"r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 2}}),
    (2, {"rank_pattern": {"proj": 4, "_proj": 2, ".*_proj": 3}}), (2, {"rank_pattern": {"v_proj": 4, "q_proj|v_proj": 2}}),
    (2, {"rank_pattern": {"^model.layers.0.self_attn.q_proj": 4, "^q_proj": 2}}), (2, {"rank_pattern": {"q_proj$": 4}}),
    (2, {"rank_pattern": {"layers.0": 4}}), (2, {"rank_pattern": {"(?i)Q_PROJ": 4}}), (2, {"rank_pattern": {"(q_proj": 4}}),
    (2, {"alpha_pattern": {"model.layers.0.self_attn.q_proj": 1, "q_proj": 24}}),
    (2, {"rank_pattern": {"model.layers.0.self_attn.q_proj": 1, "q_proj": 24}}),
    (12, {"rank_pattern": {"layers.1.self_attn.q_proj": 2, r"layers\.1\d\..*": 3}}),
    (2, {"use_rslora": True, "r": 3, "lora_alpha": 5}), (2, {"use_rslora": True, "rank_pattern": {"q_proj": 5}, "alpha_pattern": {"q_proj": 7}}),
    (2, {"r": 0}), (2, {"r": -1}), (2, {"lora_alpha": 0.5, "r": 3}),
]

TIED = [
    {"modules_to_save": ["embed_tokens"]}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens", "lm_head"]},
    {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, {"modules_to_save": ["lm_head"], "ensure_weight_tying": True},
    {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True}, {"ensure_weight_tying": True},
    {"target_modules": ["q_proj", "lm_head"]}, {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
    {"target_modules": ".*(q_proj|lm_head)", "ensure_weight_tying": True},
    {"target_modules": "all-linear"}, {"target_modules": "all-linear", "ensure_weight_tying": True},
    {"target_modules": ["lm_head", "q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
]


def random_config(rng, layers):
    def name():
        s = rng.choice(LINEARS)
        kind = rng.random()
        if kind < 0.5:
            return s
        if kind < 0.65:
            return full(rng.randrange(layers), s)
        if kind < 0.8:
            return full(rng.randrange(layers), s).split(".", rng.randrange(1, 4))[-1]
        return rng.choice(["lm_head", "proj", "mlp." + s, "self_attn." + s, "0.mlp." + s, "nothing"])

    def expr():
        group = "|".join(rng.sample(LINEARS, rng.randrange(1, 4)))
        return rng.choice([
            rf".*\.({group})", rf".*({group})", rf"model\.layers\.[0-{rng.randrange(1, 9)}]\..*({group})",
            rf"model\.layers\.\d+\.(self_attn|mlp)\.({group})", rf"(?!.*\.1\.).*(?:{group})", rf".*\.(\d)\.\w+\.(?:{group})$",
            group, ".*_proj", "^.*(?<!down)_proj$",
        ])

    def pattern(values):
        keys = [rng.choice([name(), expr(), name().replace(".", r"\."), "^" + name(), r"\d\..*", "layers.1.*proj", "[qk]_proj"])
                for _ in range(rng.randrange(1, 5))]
        return {k: rng.choice(values) for k in keys}

    c = {"r": rng.choice([1, 2, 5, 8]), "lora_alpha": rng.choice([1, 8, 16, 2.5])}
    c["target_modules"] = rng.choice([
        [name() for _ in range(rng.randrange(1, 6))], [name() for _ in range(rng.randrange(15, 40))],
        [full(i, s) for i in range(layers) for s in rng.sample(LINEARS, 4)], expr(), "all-linear",
    ])
    if rng.random() < 0.35:
        c["exclude_modules"] = rng.choice([[name() for _ in range(rng.randrange(1, 4))], expr()])
    if isinstance(c["target_modules"], list) and rng.random() < 0.5:
        c["layers_to_transform"] = rng.choice([rng.randrange(layers), rng.sample(range(layers), rng.randrange(1, layers + 1))])
        if rng.random() < 0.4:
            c["layers_pattern"] = rng.choice(["layers", ["h", "layers"], "l.yers", r"model\.layers", "(?:lay)ers"])
    if rng.random() < 0.5:
        c["rank_pattern"] = pattern([1, 3, 4])
    if rng.random() < 0.5:
        c["alpha_pattern"] = pattern([1, 4, 9])
    if rng.random() < 0.3:
        c["modules_to_save"] = rng.sample(["lm_head", "embed_tokens", "head", "tokens", "model.embed_tokens"], rng.randrange(1, 3))
    if rng.random() < 0.3:
        c["use_rslora"] = True
    return c


# ---------------------------------------------------------------- regular expressions

EXPRS = r"""
a|b
^$
a*?b
a{,2}b
a{2}
a{2,}
a{,}
a{}
a{1,x}
{
a{2,1}
x{0,1200}
*a
a**
a*+a
a?+b
a++b
(?>a*)b
(?>a*)ab
^*
\b+
(?:^)*a
(?=a)ab
(?=a)*b
(?!b).*
a(?<=a)b
(?<=a*)b
(?<=ab|c)d
(?<=ab|cd)e
(?<!x)a
(a)\1
(a)(b)\2\1
\1(a)
(a\1)
(?P<n>a)(?P=n)
(?P<n>a)(?P<n>b)
(?P<1>a)
(?P<n>.)(b)\1
(?P=x)
(?<n>a)
(?P>n)
(a)?(?(1)b|c)
(?P<x>a)?(?(x)b|c)
(a)?(?(1)b)
(?(2)a)(b)
(?(0)a)
(a)?(?(1)b|c|d)
(?i)AB
a(?i)b
(?i:A)b
(?i)a(?-i:b)
(?a)a
(?L)a
(?u)a
(?au)a
(?s).
(?m)^a$
(?x) a  b # c
(?x)a\ b
(?x: a )b
(?x)[ ]a
(?i)(?x) A b
(?q)a
(?i-i:a)
(?-u:a)
(?-:a)
(?
(
)
(?#c)a
(?#c
[abc]
[^abc]
[]a]
[^]a]
[]
[a-]
[-a]
[a-c-e]
[c-a]
[\d-z]
[\w.]+
[^\W\d]
[\s\S]
[[:alpha:]]
[a&&b]
[a-z-[b]]
[\b]
[\Z]
[\x61]
[\141]
[\8]
\d+
\D
\w\W
\s
\S
\Aa\Z
a\b
a\Bb
\e
\x61
\x6
\u0061
\U00000061
\U00110000
\0
\07
\141
\400
\8
\10
(a)\10
(a)\01
(()()()()()()()()()(a))\11
\.
\_
\
\-
a.b
a\.b
.*\.(q|v)_proj
.*(?:\.|_)b
(?:a|ab)(?:c|bcd)(?:d*)
((a*)*)*b
(a|b)*?c
(?:(a)|b)*\1
a(?=b(?!c))
a(?<=a(?=b))b
(?<=(a)\1)b
(?<=(a))\1
é
[é-ü]
K
(?i)k
""".split("\n")[1:-1]


def random_expr(rng, depth=3):
    def atom():
        k = rng.random()
        if k < 0.45 or depth == 0:
            return rng.choice(["a", "b", "c", r"\.", ".", "_", r"\d", r"\w", "0", "1", "[ab]", "[^a]", "[a-c]", r"[\d_]", "^", "$", r"\b", "-", "]"])
        inner = random_expr(rng, depth - 1)
        return rng.choice(["(%s)", "(%s)", "(?:%s)", "(?=%s)", "(?!%s)", "(?<=%s)", "(?<!%s)", "(?>%s)", "(?i:%s)"]) % inner
    out = ""
    for _ in range(rng.randrange(1, 5)):
        out += atom()
        if rng.random() < 0.3:
            out += rng.choice(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}"]) + rng.choice(["", "", "?", "+"])
        if rng.random() < 0.08:
            out += rng.choice([r"\1", r"\2", "|", "(?(1)a|b)"])
    return out


def regex_cases():
    rng = random.Random(7)
    cases = []
    fixed = ["", "a", "b", "ab", "aab", "ba", "abc", "a.b", "a_b", "AB", "aa", "abcd", "cde", "a b", "k", "K", "aaab", "abba", "z", "[a]", "-]", "1", "_"]
    refused = 0
    for expr in EXPRS + [random_expr(rng) for _ in range(2400)]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                r = re.compile(expr)
        except (re.error, ValueError, OverflowError) as e:
            refused += 1
            if refused < 200:
                cases.append({"expr": expr, "error": str(e)})
            continue
        subjects = fixed + ["".join(rng.choice("aabbc._01A") for _ in range(rng.randrange(1, 7))) for _ in range(12)]
        cases.append({"expr": expr, "full": [s for s in subjects if r.fullmatch(s)], "prefix": [s for s in subjects if r.match(s)],
                      "none": [s for s in subjects if not r.match(s)]})
    return cases


def write(path, value, lists=()):
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n")
        for i, (k, v) in enumerate(value.items()):
            f.write(f'"{k}": [\n')
            f.write(",\n".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) for x in v))
            f.write("\n]" + (",\n" if i + 1 < len(value) else "\n"))
        f.write("}\n")


def main():
    torch.manual_seed(0)
    write("lora/internal/pyre/testdata/cases.json", {"cases": regex_cases()})
    rng = random.Random(11)
    cases = [run(*c) for c in FIXED]
    cases += [run(2, c, tied=True) for c in TIED]
    for _ in range(350):
        layers = rng.choice([1, 2, 3, 3, 4, 12])
        cases.append(run(layers, random_config(rng, layers)))
    modules = [n for n, _ in decoder(2).named_modules() if n]
    assert modules == [n for n, _ in decoder(2, kind="mistral").named_modules() if n]
    write("lora/testdata/match.json", {"modules": modules, "cases": cases})


if __name__ == "__main__":
    main()
