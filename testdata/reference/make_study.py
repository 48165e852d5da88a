#!/usr/bin/env python3
"""Makes the corpora of the worked example: testdata/study/ner-{train,dev,test}.tsv and yesno-{train,dev,test}.json.

    python make_study.py [--out DIR]

Sentences are put together from words that the demo model has read and from names made up here, each of which occurs in
one row only. The diseases of the first corpus are tagged in IOB2; the questions of the second, in BioASQ's shape, are
answered by one of the sentences that they come with, as often by yes as by no. All of it is written for this project
and says nothing about medicine. The same bytes every time; made with Python 3.11.
"""

import argparse
import json
import os
import random

import demo_text as demo

SEED = 20250
ROWS = {"train": 240, "dev": 40, "test": 100}

# A word of a template in braces is a name: d and e diseases, m a medicine.
TAGGED = [  # between names too short for thirteen words in a row that train and test could share
    "patients with {d} were treated with {m} for {n} days .",
    "she was diagnosed with {d} at age {n} .",
    "a history of {d} in {n} patients .",
    "{m} was given to men with {d} for {n} days .",
    "the risk of {d} was high with {e} .",
    "signs of {d} were seen days after {m} was stopped .",
    "he has {d} and takes {m} {n} mg every day .",
    "{n} patients had {d} or {e} .",
    "in this family there is {d} .",
    "the dose of {m} was {n} mg because of {d} .",
    "after {n} weeks {d} was worse .",
    "we prescribed {m} for {d} , and {e} was not seen .",
]
PLAIN = [  # nothing to tag
    "the patient takes {m} {n} mg every morning .",
    "{n} men were started on {m} last week .",
    "the dose of {m} was {n} mg .",
    "blood tests were normal on {m} .",
]

YES = [
    "{M} helps against {d}.",
    "Patients with {d} are often treated with {m}.",
    "In a trial of {n} patients, {m} was better than placebo in {d}.",
    "{D} can be treated with {m}.",
    "The condition of {n} patients with {d} improved with {m}.",
    "Doctors know that {m} is good for {d}.",
]
NO = [
    "{M} does not help against {d}.",
    "There is no use of {m} in patients with {d}.",
    "In a trial of {n} patients, {m} was not better than placebo in {d}.",
    "{D} can not be treated with {m}.",
    "The condition of {n} patients with {d} has not improved with {m}.",
    "Doctors know that {m} is not good for {d}.",
]
BESIDE = [  # decides nothing
    "{M} may cause {s}.",
    "The dose of {m} was {n} mg.",
    "People who take {m} notice {s}.",
    "{n} patients with {d} had {s}.",
    "{D} is a disorder of the {o}.",
]
ASK = ["Does {m} help against {d}?", "Is {m} good for {d}?", "Can {d} be treated with {m}?"]


class Names:
    """Makes up names of diseases and drugs. No two begin with the same word."""

    def __init__(self, rng):
        self.rng = rng
        self.taken = {x.split()[0].lower() for pool in (demo.DRUGS, demo.DISEASES, demo.GENES) for x, *_ in pool}

    def fresh(self, made_up):
        while True:
            name = made_up(self.rng)
            if name.split()[0] not in self.taken:
                self.taken.add(name.split()[0])
                return name

    def disease(self):
        return self.fresh(demo.made_up_disease)

    def drug(self):
        return self.fresh(demo.made_up_drug)


def sentence(rng, names):
    """Tokens and tags."""
    fill = {"d": names.disease(), "e": names.disease(), "m": names.drug(), "n": str(rng.randint(11, 99))}
    tokens, tags = [], []
    for word in rng.choice(PLAIN if rng.random() < 0.15 else TAGGED).split():
        name = word.strip("{}")
        parts = fill[name].split() if word != name else [word]
        tokens += parts
        tags += ["B-Disease"] + ["I-Disease"] * (len(parts) - 1) if word in ("{d}", "{e}") else ["O"] * len(parts)
    return tokens, tags


def tagged(rng, names, count):
    return "\n".join("".join(f"{t}\t{g}\n" for t, g in zip(*sentence(rng, names))) for _ in range(count))


def questions(rng, names, split, count):
    """As many of yes as of no, in any order."""
    records = []
    for i, answer in enumerate(rng.sample(["yes", "no"] * (count // 2), count)):
        m, d = names.drug(), names.disease()
        fill = {"m": m, "d": d, "M": demo.cap(m), "D": demo.cap(d), "n": rng.randint(11, 99),
                "s": rng.choice(demo.SYMPTOMS), "o": rng.choice(demo.DISEASES)[1]}
        said = [rng.choice(YES if answer == "yes" else NO).format(**fill)]
        if rng.random() < 0.5:
            said.insert(rng.randint(0, 1), rng.choice(BESIDE).format(**fill))
        records.append({"id": f"{split}{i:03}", "type": "yesno", "body": rng.choice(ASK).format(**fill),
                        "snippets": [{"text": s} for s in said], "exact_answer": answer})
    return '{"questions": [\n' + ",\n".join(json.dumps(r) for r in records) + "\n]}\n"


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "study"))
    args = p.parse_args()
    rng = random.Random(SEED)
    names = Names(rng)
    for split, count in ROWS.items():
        write(args.out, f"ner-{split}.tsv", tagged(rng, names, count))
        write(args.out, f"yesno-{split}.json", questions(rng, names, split, count))


if __name__ == "__main__":
    main()
