"""Writes testdata/tokenizer/regex.jsonl: how Hugging Face's tokenizers cut difficult strings with regular expressions.

    python make_regex_cases.py

Needs tokenizers. The tests read the file and need none of it.
"""

import json
import os
import random

from tokenizers import Regex, pre_tokenizers

from make_tokenizer_cases import CASED, HARD, LLAMA3, OUT, random_strings

WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

PATTERNS = [
    LLAMA3, CASED, WORD + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    .replace("{1,3}+", "{1,3}"),
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|\p{N}", r"(?<=\d)[a-z]+|(?<![a-z]) +", r"(?<! )[a-z]|(?<=[^ ])\d",
    r"\w+|[^\w\s]+", r"\b\w", r"\B\w", r"^.", r".$", r"^\s+|\s+$", r"\A\w|\w\z", r".+", r".+?", r"a+?b", r"a{2,3}?", r"\d{2}", r"\d{2,}",
    r"\d{,2}x", r"(?:ab|a)(?:c|bcd)?", r"(a|ab)(c|bcd)", r"(?:a|b)*c|a", r"(?:a*)*b|a", r"(?:a?b??)+c|[ab]", r"(?i:ß|ſ|k)+", r"(?i:[a-c])+",
    r"[^\S\n]+", r"[a\-z]+", r"[-a]+", r"[a-]+", r"[\u4e00-\u9fa5]+", r"[\x{61}-\x{7a}]+", r"\p{Han}+|\p{Cyrillic}+",
    r"\p{^L}+", r"\P{^L}+", r"[^\p{^L}]+", r"x*+y|x", r"x?+x", r"\s?\p{P}+|\s?\p{L}+", r"[\p{P}\$\+<=>\^~\|]+", r"\[\]|\{\}|}", r"\/|\ ",
    r"(?:(?:a|b)(?:c|d))+|.", r"a|b||c".replace("||", "|"), r"(?:\r\n|\r|\n)+", r"[\t-\r ]+",
]


def texts():
    rng = random.Random(6)
    parts = ["a", "b", "c", "ab", "abc", "bcd", "x", "y", "A", "B", "Z", "1", "22", "333", " ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", "-",
             ".", "_", "é", "ß", "ſ", "K", "好", "ж", "٣", "½", "\u00a0", "\u3000", "\u2028", "🙂", "\u0301", "[]", "{}", "/", "\\", "$"]
    out = [s for s in HARD if "<" not in s] + random_strings(20)
    return out + ["".join(rng.choice(parts) for _ in range(rng.randint(1, 12))) for _ in range(150)]


def main():
    with open(os.path.join(OUT, "regex.jsonl"), "w", encoding="utf-8") as f:
        for pattern in PATTERNS:
            pre = pre_tokenizers.Split(Regex(pattern), "isolated")
            cases = []
            for text in texts():
                pieces = [p for p, _ in pre.pre_tokenize_str(text)]
                assert "".join(pieces) == text
                if len(pieces) > 1:
                    cases.append(pieces)
            row = dict(pattern=pattern, cases=cases[::3])
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
