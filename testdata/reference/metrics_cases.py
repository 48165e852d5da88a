#!/usr/bin/env python3
"""Writes the reference cases of internal/eval: what rouge_score, NLTK, seqeval, scikit-learn and SciPy make of random input.

    python metrics_cases.py

Needs rouge_score 0.1.2, nltk, seqeval 1.2.2, scikit-learn and scipy. The tests read the files and need none of it.
Undefined means (of no classes at all) are NaN there and 0 here.
"""

import json
import math
import os
import random
import warnings

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from scipy.stats import binomtest
from seqeval.metrics import classification_report as entity_report
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

warnings.filterwarnings("ignore")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "internal", "eval")

WORDS = """the of a in patient patients disease was with treated treating treatment relational conditional hopping
hoping hopped fills filing failing sized sizes skies dying flies died spied enjoyed enjoy happy happily by say cry
generally rationally relationally hopefully carefully archaeology geology biologically electrical electricity
inflammation inflamed inflammatory adjustments replacement dependent adoption communism activate angularity
homologous effective oscillate probate rate ceased controlling rolls feed agreed agreeing bled sing motoring caresses
ponies ties cats tnf-alpha IL-6 p53 2.5 mg/kg 10 15% BRCA1 α β-blocker naïve 5′ T₃ Straße İnfant KELVIN \u212aelvin
yy ayy yay yyy eed ing ed ss sss ion tion logi alli bli ied ies""".split()
STEMS = "rel hop fil trap oper act form sens vi yell yt cry x2 b a oe gene path morph log al ti es bl iz at onco".split()
SUFFIXES = ("ational tional enci anci izer abli bli alli entli eli ousli ization ation ator alism iveness fulness ousness "
            "aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement "
            "ment ent sion tion ion ou ism ate iti ous ive ize e ll sses ies ss s eed ed ing ated izing bled ied y ly ying "
            "ally ologies rating ssing lling tted").split()


def write(path, value):
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def number(x):
    return 0.0 if math.isnan(x) else round(float(x), 11)


def text(r, words, n):
    gaps = [" "] * 8 + ["\n", ", ", ".\n", "  ", "-", "\n\n", "_"]
    return "".join(r.choice(words) + r.choice(gaps) for _ in range(n))


def rouge():
    r = random.Random(1)
    pairs = [("", ""), ("", "a"), ("a", ""), ("!?", "."), ("\n\n", "a\n"), ("a", "a"), ("a b", "b a"), ("\na b\n\nc", "c\na")]
    for i in range(220):
        words = r.sample(WORDS, r.choice([2, 4, 12, 40]))
        n = r.choice([0, 1, 2, 5, 12, 30]) if i % 40 else r.choice([64, 65, 128, 129, 200])
        a = text(r, words, n)
        b = text(r, words, r.choice([0, 1, 3, n, n + 3])) if r.random() < 0.7 else a[len(a) // 4:] + text(r, words, 2)
        pairs.append((a, b))
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorers = [rouge_scorer.RougeScorer(kinds, use_stemmer=stem) for stem in (False, True)]
    cases = []
    for a, b in pairs:
        scores = [[list(map(number, s.score(a, b)[k])) for k in kinds] for s in scorers]
        cases.append([a, b, scores[0], scores[1] if scores[1] != scores[0] else None])
    write("rouge/testdata/scores.json", cases)

    words = {w.lower() for w in WORDS if w.isascii() and w.isalnum()} | {a + b for a in STEMS for b in SUFFIXES}
    words |= {a + b + c for a in STEMS for b, c in (r.sample(SUFFIXES, 2) for _ in range(40))}
    words |= {"".join(r.choice("aeioyyybcdlsstx1") for _ in range(r.randint(3, 9))) for _ in range(600)}
    stemmer = PorterStemmer()
    words = sorted(words)
    write("rouge/testdata/stems.json", [" ".join(words), " ".join(stemmer.stem(w) for w in words)])


def averages(gold, pred, *kinds):
    return {a: [number(x) for x in precision_recall_fscore_support(gold, pred, average=a, zero_division=0)[:3]] for a in kinds}


def classes():
    r = random.Random(2)
    cases = []
    for i in range(150):
        labels = ["yes", "no", "maybe", "B", "None", ""][:r.randint(1, 6)]
        n = r.choice([1, 2, 3, 10, 40])
        gold = [r.choice(labels[:r.randint(1, len(labels))]) for _ in range(n)]
        pred = [g if r.random() < 0.5 else r.choice(labels) for g in gold]
        names = sorted(set(gold) | set(pred))
        p, rec, f, s = precision_recall_fscore_support(gold, pred, average=None, zero_division=0, labels=names)
        cases.append({"gold": gold, "pred": pred, "accuracy": number(accuracy_score(gold, pred)), **averages(gold, pred, "micro", "macro", "weighted"),
                      "classes": [[c, *map(number, x), int(k)] for c, *x, k in zip(names, p, rec, f, s)]})
    write("metrics/testdata/classes.json", cases)


def multilabel():
    r = random.Random(3)
    cases = []
    for i in range(150):
        labels = list("ABCDEF")[:r.randint(2, 6)]
        n = r.choice([1, 2, 5, 20])
        some = lambda: [x for x in labels if r.random() < r.choice([0.1, 0.4, 0.8])]
        gold = [some() for _ in range(n)]
        pred = [g if r.random() < 0.3 else some() for g in gold]
        b = MultiLabelBinarizer(classes=labels)
        y, z = b.fit_transform(gold), b.transform(pred)
        out = averages(y, z, "micro", "weighted", "samples")
        seen = np.flatnonzero(y.sum(0) + z.sum(0))  # macro: of the labels that occur
        macro = precision_recall_fscore_support(y, z, average=None, zero_division=0)
        out["macro"] = [number(np.mean(m[seen])) if len(seen) else 0.0 for m in macro[:3]]
        cases.append({"gold": gold, "pred": pred, "subset": number(accuracy_score(y, z)), **out})
    write("metrics/testdata/multilabel.json", cases)


def entities():
    r = random.Random(4)
    cases = []
    for i in range(190):
        kinds = r.choice([[""], ["-Disease"], ["-A", "-B"], ["-problem", "-test", "-treatment"], ["", "-A"],
                          ["-X-Y", "--Z", "-"]])
        prefixes = "BIO" if i % 4 else "BIOES"
        tag = lambda: (lambda p: p if p == "O" else p + r.choice(kinds))(r.choice("O" + prefixes * r.choice([1, 2])))
        gold = [[tag() for _ in range(r.choice([0, 1, 2, 6, 15]))] for _ in range(r.choice([1, 2, 5]))]
        pred = [[t if r.random() < r.choice([0.3, 0.9, 1]) else tag() for t in s] for s in gold]
        case = {"gold": [" ".join(s) for s in gold], "pred": [" ".join(s) for s in pred]}
        for name, mode in (("default", {}), ("strict", {"mode": "strict", "scheme": IOB2})):
            if name == "strict" and prefixes != "BIO":
                continue
            report = entity_report(gold, pred, output_dict=True, zero_division=0, **mode)
            case[name] = [[k, number(v["precision"]), number(v["recall"]), number(v["f1-score"]), int(v["support"])]
                          for k, v in report.items()]
        cases.append(case)
    write("metrics/testdata/entities.json", cases)


def last_tags(lines):
    """Token to tag as MedTuned's evaluation takes them from an answer: fields between colons, the last line counts."""
    fields = [line.split(":") for line in lines.strip().split("\n")]
    return {f[0].strip(): f[1].strip() for f in fields if len(f) > 1}


def repository():
    r = random.Random(6)
    cases = []
    for _ in range(60):
        tokens = [r.choice(["the", "p53", "gene", ":", "a:b", "of", "α"]) for _ in range(r.randint(1, 9))]
        lines = lambda tags, n: [r.choice(tokens) + r.choice([" : ", " : ", ":"]) + r.choice(tags) for _ in range(n)]
        gold = "\n".join(t + " : " + r.choice("OBI") for t in tokens)
        answer = "\n".join(lines(["O", "B", "I", "X", ""], r.randint(0, 9)) + r.choice([[], ["nothing"], ["### more", "the : B"]]))
        if r.random() < 0.3:
            answer = gold
        g, p = last_tags(gold), last_tags(answer.strip().split("###")[0])
        keep = lambda tag: tag if tag in ("O", "B", "I") else "O"
        cases.append({"Gold": gold, "Answer": answer, "GoldTags": " ".join(map(keep, g.values())),
                      "Tags": " ".join(keep(p.get(t, "O")) for t in g)})
    write("metrics/testdata/repository.json", cases)


def tests():
    r = random.Random(5)
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (5, 0), (0, 12), (3, 11), (200, 260), (1000, 900), (40, 40)]
    pairs += [(r.randint(0, 60), r.randint(0, 60)) for _ in range(60)]
    mcnemar = [[b, c, binomtest(b, b + c, 0.5).pvalue if b + c else 1.0] for b, c in pairs]
    percentiles = []
    for _ in range(40):
        x = [round(r.gauss(0, 1), 3) for _ in range(r.randint(1, 30))]
        q = r.choice([0, 2.5, 5, 50, 97.5, 99.9, 100])
        percentiles.append([x, q, float(np.percentile(x, q))])
    write("metrics/testdata/tests.json", {"mcnemar": mcnemar, "percentiles": percentiles})


if __name__ == "__main__":
    rouge()
    classes()
    multilabel()
    entities()
    repository()
    tests()
