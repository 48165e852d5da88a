"""Converts the corpora of ../shared/data a second time, by other code than the package's, and prints the hash of each
that TestRealCorpora expects: SHA-256 over id, split, input and output of all rows, each followed by a zero byte.

    python3 internal/medtuned/testdata/reference.py ../shared/data
"""
import csv
import hashlib
import json
import os
import re
import sys

root = sys.argv[1]


def tidy(s):
    return s.replace("\r\n", "\n").replace("\r", "\n").strip()


def show(name, rows):
    h = hashlib.sha256()
    n = 0
    for row in rows:
        n += 1
        for text in row:
            h.update(text.encode() + b"\0")
    print(name, n, h.hexdigest())


def load(file):
    return open(os.path.join(root, file), encoding="utf-8-sig", newline="")


def ner(source, files, typed=False):
    for file, split in files:
        stem = os.path.basename(file).rsplit(".", 1)[0]
        blocks = re.split(r"\n\s*\n", load("ner/" + file).read().strip("\n"))
        n = 0
        for block in blocks:
            pairs = [line.split("\t") for line in block.strip("\n").split("\n") if not line.startswith("-DOCSTART-")]
            if not pairs or pairs == [[""]]:
                continue
            tags = [tag if typed else tag[0] for _, tag in pairs]
            yield (f"{source}/{stem}/{n}", split, " ".join(t for t, _ in pairs),
                   "\n".join(f"{t} : {tag}" for (t, _), tag in zip(pairs, tags)))
            n += 1


def gad():
    for split in "train", "test":
        for n, line in enumerate(load(f"gad/gad-fold0-{split}.jsonl")):
            r = json.loads(line)
            yield f"gad/gad-fold0-{split}/{n}", split, tidy(r["sentence"]), "Positive" if int(r["label"]) == 1 else "Negative"


def medqa():
    def lines(s):
        s = s.strip()
        if s.endswith('\n"'):
            s = s[:-2]
        split = [x.strip() for x in s.strip().split("\n")]
        return "\n".join(split[:-5] + [re.sub(r"^([A-E])\. +", r"\1. ", x) for x in split[-5:]])

    for n, r in enumerate(json.load(load("medqa/medqa5_test.json"))):
        yield f"medqa/medqa5_test/{n}", "test", lines(r["sentence"]), lines(r["gold"])


def pubmedqa():
    truth = json.load(load("pubmedqa/test_ground_truth.json"))
    for key, r in json.load(load("pubmedqa/ori_pqal.json")).items():
        text = "Context: " + "\n".join(tidy(c) for c in r["CONTEXTS"]) + "\nQuestion: " + tidy(r["QUESTION"])
        yield f"pubmedqa/{key}", "test" if key in truth else "train", text, r["final_decision"]


def mts():
    for file, split in ("train", "train"), ("valid", "dev"), ("test1", "test"):
        for n, r in enumerate(csv.DictReader(load(f"mts-dialog/{file}.csv"))):
            yield f"mts-dialog/{file}/{n}", split, tidy(r["dialogue"]), tidy(r["section_text"])


def aci():
    for n, r in enumerate(json.load(load("aci-bench/valid.json"))["data"]):
        yield f"aci-bench/valid/{n}", "dev", tidy(r["src"]), tidy(r["tgt"])


def three(corpus):
    return [(f"{corpus}-IOB.{file}.tsv", split) for file, split in (("train", "train"), ("devel", "dev"), ("test", "test"))]


show("ncbi-disease", ner("ncbi-disease", three("NCBI-disease")))
show("bc5cdr-disease", ner("bc5cdr-disease", three("BC5CDR-disease")))
show("bc5cdr-chem", ner("bc5cdr-chem", three("BC5CDR-chem")))
show("jnlpba", ner("jnlpba", [("JNLPBA.devel.tsv", "dev"), ("JNLPBA.test.tsv", "test")]))
show("ner-typed", ner("ner-typed", [("JNLPBA.devel.tsv", "dev")], typed=True))
show("gad", gad())
show("medqa", medqa())
show("pubmedqa", pubmedqa())
show("mts-dialog", mts())
show("aci-bench", aci())
