"""Text of the demo: a small biomedical lexicon and the templates that make documents and instructions of it.

Two things are made here. `document` gives the pre-training text of the demo model: notes, short articles, questions
and answers, forms, and much copying, looking up and labelling of made-up words, so that the model can learn to work
on words it has never met. `instructions` gives the rows of the demo's fine-tuning: the same knowledge, asked for in
BioInstruct's shape, in forms of answer that the pre-training text does not have. All of it is written for this
project; it teaches a tiny model to talk in a certain form and is no medical advice.
"""

# name, class, what it treats, a side effect
DRUGS = [tuple(x.strip() for x in line.split("|")) for line in """
metformin | biguanide | type 2 diabetes | diarrhea
glipizide | sulfonylurea | type 2 diabetes | low blood sugar
sitagliptin | gliptin | type 2 diabetes | headache
enalapril | ACE inhibitor | hypertension | dry cough
lisinopril | ACE inhibitor | hypertension | dry cough
ramipril | ACE inhibitor | heart failure | dry cough
losartan | angiotensin blocker | hypertension | dizziness
valsartan | angiotensin blocker | heart failure | dizziness
amlodipine | calcium channel blocker | hypertension | ankle swelling
diltiazem | calcium channel blocker | angina | constipation
atenolol | beta blocker | angina | fatigue
bisoprolol | beta blocker | heart failure | fatigue
propranolol | beta blocker | migraine | fatigue
sumatriptan | triptan | migraine | chest tightness
furosemide | loop diuretic | heart failure | low potassium
atorvastatin | statin | high cholesterol | muscle pain
simvastatin | statin | high cholesterol | muscle pain
rosuvastatin | statin | high cholesterol | muscle pain
warfarin | anticoagulant | deep vein thrombosis | bleeding
apixaban | anticoagulant | atrial fibrillation | bleeding
heparin | anticoagulant | pulmonary embolism | bleeding
clopidogrel | antiplatelet | stroke | bruising
digoxin | cardiac glycoside | atrial fibrillation | nausea
salbutamol | bronchodilator | asthma | tremor
budesonide | inhaled steroid | asthma | hoarseness
montelukast | leukotriene blocker | asthma | vivid dreams
tiotropium | bronchodilator | COPD | dry mouth
omeprazole | proton pump inhibitor | acid reflux | headache
pantoprazole | proton pump inhibitor | gastric ulcer | headache
famotidine | acid blocker | acid reflux | headache
amoxicillin | penicillin | pneumonia | rash
doxycycline | tetracycline | Lyme disease | sun sensitivity
azithromycin | macrolide | bronchitis | diarrhea
ciprofloxacin | quinolone | urinary tract infection | tendon pain
nitrofurantoin | antibiotic | urinary tract infection | nausea
isoniazid | antibiotic | tuberculosis | liver damage
rifampicin | antibiotic | tuberculosis | orange urine
oseltamivir | antiviral | influenza | nausea
acyclovir | antiviral | shingles | headache
fluconazole | antifungal | thrush | nausea
ivermectin | antiparasitic | scabies | itching
artemether | antimalarial | malaria | dizziness
sertraline | SSRI | depression | nausea
fluoxetine | SSRI | depression | insomnia
citalopram | SSRI | panic disorder | sweating
lithium | mood stabilizer | bipolar disorder | tremor
olanzapine | antipsychotic | schizophrenia | weight gain
haloperidol | antipsychotic | schizophrenia | stiffness
levetiracetam | anticonvulsant | epilepsy | irritability
lamotrigine | anticonvulsant | epilepsy | rash
levodopa | dopamine precursor | Parkinson disease | nausea
donepezil | cholinesterase inhibitor | Alzheimer disease | vivid dreams
riluzole | glutamate blocker | ALS | weakness
allopurinol | xanthine oxidase inhibitor | gout | rash
colchicine | antigout agent | gout | diarrhea
methotrexate | antimetabolite | rheumatoid arthritis | mouth sores
adalimumab | TNF blocker | psoriasis | infection
ibuprofen | painkiller | osteoarthritis | stomach pain
alendronate | bisphosphonate | osteoporosis | heartburn
levothyroxine | thyroid hormone | hypothyroidism | palpitations
carbimazole | antithyroid agent | hyperthyroidism | rash
prednisolone | corticosteroid | lupus | weight gain
tamoxifen | estrogen blocker | breast cancer | hot flushes
trastuzumab | HER2 antibody | breast cancer | chills
imatinib | kinase inhibitor | leukemia | swelling
docetaxel | taxane | prostate cancer | hair loss
cisplatin | platinum agent | ovarian cancer | hearing loss
mesalazine | bowel anti-inflammatory | ulcerative colitis | headache
infliximab | TNF blocker | Crohn disease | infection
latanoprost | prostaglandin analog | glaucoma | darker iris
finasteride | reductase inhibitor | enlarged prostate | low libido
loratadine | antihistamine | hay fever | drowsiness
""".strip().splitlines()]

# name, organ, symptoms
DISEASES = [(n.strip(), o.strip(), [s.strip() for s in sy.split(",")]) for n, o, sy in
            (line.split("|") for line in """
type 2 diabetes | pancreas | thirst, frequent urination, blurred vision
hypertension | blood vessels | headache, nosebleeds, dizziness
heart failure | heart | breathlessness, ankle swelling, fatigue
angina | heart | chest pain, breathlessness, sweating
atrial fibrillation | heart | palpitations, dizziness, fatigue
high cholesterol | blood vessels | yellow skin patches, chest pain
deep vein thrombosis | veins | leg swelling, leg pain, warm skin
pulmonary embolism | lungs | breathlessness, chest pain, coughing blood
stroke | brain | facial droop, arm weakness, slurred speech
asthma | lungs | wheezing, cough, chest tightness
COPD | lungs | chronic cough, breathlessness, wheezing
pneumonia | lungs | fever, cough, chest pain
bronchitis | airways | cough, sputum, fatigue
tuberculosis | lungs | night sweats, weight loss, coughing blood
influenza | airways | fever, muscle pain, cough
acid reflux | esophagus | heartburn, sour taste, cough
gastric ulcer | stomach | stomach pain, nausea, bloating
Crohn disease | bowel | diarrhea, stomach pain, weight loss
ulcerative colitis | colon | bloody stools, cramps, fatigue
urinary tract infection | bladder | burning urination, fever, pelvic pain
Lyme disease | skin | ring rash, joint pain, fever
shingles | nerves | blisters, burning pain, itching
thrush | mouth | white patches, soreness, loss of taste
scabies | skin | itching, burrows, rash
malaria | red blood cells | fever, chills, sweating
depression | brain | low mood, insomnia, loss of appetite
panic disorder | brain | palpitations, trembling, fear
bipolar disorder | brain | mood swings, insomnia, racing thoughts
schizophrenia | brain | hallucinations, delusions, withdrawal
epilepsy | brain | seizures, confusion, staring spells
migraine | brain | throbbing headache, nausea, light sensitivity
Parkinson disease | brain | tremor, stiffness, slow movement
Alzheimer disease | brain | memory loss, confusion, wandering
ALS | motor neurons | muscle weakness, twitching, slurred speech
gout | joints | toe pain, redness, swelling
rheumatoid arthritis | joints | joint pain, morning stiffness, swelling
osteoarthritis | joints | knee pain, stiffness, creaking
osteoporosis | bones | fractures, back pain, loss of height
psoriasis | skin | scaly plaques, itching, nail pits
lupus | connective tissue | butterfly rash, joint pain, fatigue
hypothyroidism | thyroid | weight gain, cold intolerance, dry skin
hyperthyroidism | thyroid | weight loss, heat intolerance, tremor
breast cancer | breast | breast lump, nipple discharge
prostate cancer | prostate | weak urine stream, bone pain
ovarian cancer | ovary | bloating, pelvic pain
leukemia | bone marrow | bruising, fatigue, fever
glaucoma | eye | eye pain, halos, blurred vision
enlarged prostate | prostate | weak urine stream, night urination
hay fever | nose | sneezing, itchy eyes, runny nose
""".strip().splitlines())]

# symbol, what it makes, disease
GENES = [tuple(x.strip() for x in line.split("|")) for line in """
BRCA1 | a DNA repair protein | breast cancer
BRCA2 | a DNA repair protein | ovarian cancer
HTT | huntingtin | Huntington disease
CFTR | a chloride channel | cystic fibrosis
APOE | a fat carrier | Alzheimer disease
APP | amyloid precursor | Alzheimer disease
SNCA | alpha-synuclein | Parkinson disease
LRRK2 | a kinase | Parkinson disease
SOD1 | superoxide dismutase | ALS
DMD | dystrophin | muscular dystrophy
HBB | beta globin | sickle cell disease
F8 | clotting factor 8 | hemophilia
LDLR | the LDL receptor | high cholesterol
HFE | an iron regulator | iron overload
PKD1 | polycystin | polycystic kidney disease
FBN1 | fibrillin | Marfan syndrome
RB1 | a cell cycle brake | retinoblastoma
APC | a growth brake | colon cancer
NOD2 | a bacteria sensor | Crohn disease
PAH | an amino acid enzyme | phenylketonuria
GBA | a lipid enzyme | Gaucher disease
SCN1A | a sodium channel | epilepsy
INS | insulin | diabetes
TSHR | the thyrotropin receptor | hyperthyroidism
""".strip().splitlines()]

PEOPLE = ["man", "woman"]
DOSES = [1, 2, 2.5, 5, 10, 15, 20, 25, 30, 40, 50, 75, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 750, 800]
OFTEN = ["once daily", "twice daily", "every night", "every morning", "three times a day", "once a week"]
ANIMALS = ("cat dog horse cow sheep goat lion tiger bear wolf fox rabbit mouse duck goose eagle owl frog snake "
           "whale").split()
FRUITS = "apple pear plum peach cherry grape lemon orange banana melon fig mango kiwi olive date lime".split()
COLOURS = "red blue green yellow black white brown pink purple grey".split()
PLACES = "kitchen garden office market school station harbour library museum forest valley bridge".split()
TOOLS = "hammer saw drill rope ladder bucket needle brush shovel knife lamp basket".split()
NAMES = ("Anna Ben Clara David Emma Felix Grace Henry Iris Jack Karen Liam Maria Noah Olga Paul Rosa Sam Tina "
         "Victor").split()
KINDS = {"animal": ANIMALS, "fruit": FRUITS, "colour": COLOURS, "place": PLACES, "tool": TOOLS}
ONSETS = "b c d f g h k l m n p r s t v z br cl dr fl gr pl pr st tr".split()
VOWELS = "a e i o u".split()
CODAS = ["", "", "", "n", "r", "l", "x", "s", "m", "t"]
SYMPTOMS = sorted({s for _, _, ss in DISEASES for s in ss})
PROMPT = ("Below is an instruction that describes a task. Write a response that appropriately completes the request."
          "\n\n### Instruction:\n{}\n\n### Response:\n")
PROMPT_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. "
                "Write a response that appropriately completes the request."
                "\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n")


def cap(s):
    return s[:1].upper() + s[1:]


def join(words, last="and"):
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" {last} " + words[-1]


def a(word):
    """The word with its article."""
    return ("an " if word[0] in "aeiouAEIO" or word[0] == "8" or word == "SSRI" else "a ") + word


def made_up(rng, endings=("",)):
    """A word nobody has seen: two or three syllables."""
    n = rng.choice((2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS if i == n - 1 else ["", "", "", "n", "r"])
                   for i in range(n)) + rng.choice(endings)


def made_up_drug(rng):
    return made_up(rng, ("", "in", "ol", "ide", "ine", "mab", "pril", "statin", "vir", "zole"))


def made_up_disease(rng):
    return made_up(rng, ("itis", "osis", "oma", "emia", " fever", " syndrome", " disease"))


def made_up_gene(rng):
    return "".join(rng.choice("ABCDEFGHKLMNPRSTXZ") for _ in range(rng.choice((2, 3, 4)))) + str(rng.randint(1, 9))


def dose(rng):
    return f"{rng.choice(DOSES)} mg"


class Case:
    """One imaginary patient: who, what for, with what, and what was and was not found."""

    def __init__(self, rng, strange=0.35, drugs=DRUGS, symptoms=None):
        self.rng = rng
        self.who = rng.choice(PEOPLE)
        self.he, self.his, self.sex = ("he", "his", "male") if self.who == "man" else ("she", "her", "female")
        self.age = rng.randint(19, 89)
        drug = rng.choice(drugs)
        self.drug, self.disease = drug[0], drug[2]
        found = [ss for n, _, ss in DISEASES if n == self.disease][0] if symptoms is None else rng.sample(symptoms, 3)
        if rng.random() < strange:
            self.drug = made_up_drug(rng)
        if rng.random() < strange:
            self.disease = made_up_disease(rng)
            found = rng.sample(SYMPTOMS, 3)
        self.dose, self.often = dose(rng), rng.choice(OFTEN)
        self.found = rng.sample(found, min(len(found), rng.choice((2, 2, 3))))
        others = [s for s in SYMPTOMS if s not in self.found]
        self.absent = rng.sample(others, rng.choice((1, 1, 2)))

    def person(self):
        return f"{self.age}-year-old {self.who}"

    def opening(self):
        r, f = self.rng, join(self.found)
        return r.choice([
            f"{cap(a(self.person()))} with {self.disease} reports {f}.",
            f"The patient is {a(self.person())} who presents with {f}.",
            f"{cap(a(self.person()))} came to the clinic with {f}.",
            f"This {self.person()} was admitted because of {f}.",
        ])

    def denial(self):
        r, f = self.rng, join(self.absent, "or")
        return r.choice([f"There is no {f}.", f"{cap(self.he)} denies {f}.", f"{cap(self.he)} has no {f}.",
                         f"The patient does not report {f}."])

    def diagnosis(self):
        r = self.rng
        return r.choice([f"The diagnosis is {self.disease}.", f"{cap(self.he)} was diagnosed with {self.disease}.",
                         f"Findings are consistent with {self.disease}.",
                         f"{cap(self.he)} is known to have {self.disease}."])

    def treatment(self):
        r = self.rng
        return r.choice([
            f"{cap(self.he)} was started on {self.drug} {self.dose} {self.often}.",
            f"The drug {self.drug} {self.dose} was given {self.often}.",
            f"We prescribed {self.drug} {self.dose} {self.often}.",
            f"{cap(self.he)} takes {self.drug} {self.dose} {self.often}.",
            f"Treatment with {self.drug} {self.dose} {self.often} was begun.",
        ])

    def ending(self):
        return self.rng.choice(["Follow-up is planned in two weeks.", "Blood tests were normal.",
                                "The course was stable.", f"{cap(self.his)} condition improved.",
                                "Vital signs were normal.", "An X-ray was ordered.",
                                "No surgery was needed.", f"{cap(self.he)} was discharged home.",
                                f"{cap(self.he)} will return if symptoms get worse."])

    def note(self, extra=True):
        parts = [self.opening()]
        if self.rng.random() < 0.7:
            parts.append(self.denial())
        parts.append(self.diagnosis())
        parts.append(self.treatment())
        if extra:
            parts.append(self.ending())
        return " ".join(parts)


# ---------------------------------------------------------------- what is known, said in several ways

def drug_facts(rng, d):
    name, kind, disease, effect = d
    return [
        rng.choice([f"{cap(name)} is {a(kind)}.", f"{cap(name)} belongs to the {kind} class.",
                    f"The drug {name} is {a(kind)}.", f"Doctors know {name} as {a(kind)}."]),
        rng.choice([f"{cap(name)} is given for {disease}.", f"Patients with {disease} are often treated with {name}.",
                    f"The drug {name} helps against {disease}.", f"In {disease}, {name} is a common choice.",
                    f"The main use of {name} is {disease}.", f"{cap(disease)} can be treated with {name}."]),
        rng.choice([f"{cap(name)} may cause {effect}.", f"A side effect of {name} is {effect}.",
                    f"Some people who take {name} notice {effect}.", f"With {name}, {effect} can occur."]),
    ]


def disease_facts(rng, d):
    name, organ, symptoms = d
    s = rng.sample(symptoms, len(symptoms))
    return [
        rng.choice([f"{cap(name)} affects the {organ}.", f"{cap(name)} harms the {organ}.",
                    f"In {name}, doctors look at the {organ}.", f"{cap(name)} is a disorder of the {organ}."]),
        rng.choice([f"Typical symptoms of {name} are {join(s)}.", f"People with {name} often have {join(s)}.",
                    f"{cap(name)} can show itself by {join(s)}.", f"{cap(join(s))} may point to {name}."]),
    ]


def gene_facts(rng, g):
    name, product, disease = g
    return [
        rng.choice([f"The gene {name} encodes {product}.", f"{name} makes {product}.",
                    f"{cap(product)} is made from {name}."]),
        rng.choice([f"Mutations in {name} cause {disease}.", f"{name} is linked to {disease}.",
                    f"Variants of {name} raise the risk of {disease}.", f"In {disease}, {name} is often altered."]),
    ]


def facts(rng):
    k = rng.random()
    if k < 0.5:
        out = drug_facts(rng, rng.choice(DRUGS))
    elif k < 0.8:
        out = disease_facts(rng, rng.choice(DISEASES))
    else:
        out = gene_facts(rng, rng.choice(GENES))
    rng.shuffle(out)
    return out


def question(rng):
    """A question and its answer in one or two words, as in a list of frequent questions."""
    k = rng.random()
    if k < 0.55:
        name, kind, disease, effect = rng.choice(DRUGS)
        return rng.choice([
            (rng.choice([f"What does {name} treat?", f"What is {name} for?", f"Which illness is {name} given for?"]),
             cap(disease)),
            (rng.choice([f"What kind of drug is {name}?", f"Which class is {name} in?"]), cap(kind)),
            (rng.choice([f"What can {name} cause?", f"Name a side effect of {name}."]), cap(effect)),
        ])
    if k < 0.85:
        name, organ, symptoms = rng.choice(DISEASES)
        return rng.choice([
            (rng.choice([f"Where is {name} found?", f"Which part of the body does {name} affect?"]), cap(organ)),
            (rng.choice([f"How does {name} show itself?", f"What are signs of {name}?"]),
             cap(join(rng.sample(symptoms, len(symptoms))))),
        ])
    name, product, disease = rng.choice(GENES)
    return rng.choice([(f"What does the gene {name} encode?", cap(product)),
                       (rng.choice([f"Which disease comes with {name}?", f"What is {name} linked to?"]), cap(disease))])


# ---------------------------------------------------------------- documents

def doc_notes(rng):
    return "\n".join(Case(rng).note() for _ in range(rng.choice((1, 2, 2, 3))))


def doc_article(rng):
    k = rng.random()
    pool, fn = (DRUGS, drug_facts) if k < 0.5 else (DISEASES, disease_facts) if k < 0.8 else (GENES, gene_facts)
    title = rng.choice(["", "", "", "Background. ", "Overview. "])
    out = []
    for item in rng.sample(pool, rng.choice((2, 3))):
        f = fn(rng, item)
        rng.shuffle(f)
        out += f
    if rng.random() < 0.3:
        n, new, old = rng.randint(2, 90) * 10, made_up_drug(rng), rng.choice(DRUGS)[0]
        out.append(f"In a trial of {n} patients, {new} was better than {old}.")
    return title + " ".join(out)


def doc_questions(rng):
    q, ans = rng.choice([("Q: ", "A: "), ("Question: ", "Answer: ")])
    return "\n".join(f"{q}{x}\n{ans}{y}." for x, y in (question(rng) for _ in range(rng.randint(3, 7))))


def doc_form(rng):
    """A note, then the same as a form; the order and the names of the fields change."""
    c = Case(rng, strange=0.6)
    state = [(s, "present") for s in c.found] + [(s, "absent") for s in c.absent]
    fields = [
        (rng.choice(["medicine", "given", "therapy"]), c.drug), (rng.choice(["strength", "amount"]), c.dose),
        (rng.choice(["problem", "illness", "condition"]), c.disease), ("age", str(c.age)), ("patient", c.who),
        ("sex", c.sex), ("how often", c.often), (rng.choice(["complaints", "signs"]), join(c.found)),
    ]
    if rng.random() < 0.6:
        fields = state + rng.sample(fields, 2)
    rng.shuffle(fields)
    sep = rng.choice([": ", " = ", " | "])
    note = " ".join([c.opening(), c.denial(), c.diagnosis(), c.treatment()])
    head = rng.choice(["Form", "Record", "Table"])
    return f"Note\n{note}\n{head}\n" + "\n".join(k + sep + v for k, v in fields[:rng.randint(3, 7)])


def findings(rng, low, high):
    """A text that says of some things, many of them made up, that they are there and of others that they are not."""
    n = rng.randint(low, high)
    things = [made_up(rng) if rng.random() < 0.5 else rng.choice(SYMPTOMS) for _ in range(n)]
    state = {t: rng.random() < 0.5 for t in things}
    yes, no = [t for t in state if state[t]], [t for t in state if not state[t]]
    text = []
    if yes:
        text.append(rng.choice(["There is {}.", "The patient has {}.", "She reports {}.", "He has {}."]).format(
            join(yes)))
    if no:
        text.append(rng.choice(["There is no {}.", "The patient has no {}.", "She denies {}.", "He denies {}.",
                                "The patient does not report {}."]).format(join(no, "or")))
    rng.shuffle(text)
    return " ".join(text), state


def doc_states(rng):
    """Which findings are there and which are not: the text first, then many questions."""
    text, state = findings(rng, 3, 6)
    words = rng.choice([("yes", "no"), ("Yes", "No"), ("present", "absent"), ("true", "false")])
    ask = rng.choice(["{}?", "Is there {}?", "{}:", "Does the patient have {}?", "Any {}?"])
    order = rng.sample(sorted(state), len(state))
    return text + "\n" + "\n".join(f"{ask.format(t)} {words[not state[t]]}" for t in order)


def doc_ask(rng):
    """The same with the question before the text, in several short rounds."""
    words = rng.choice([("yes", "no"), ("Yes", "No"), ("present", "absent"), ("true", "false")])
    ask = rng.choice(["{}?", "Is there {}?", "Look for {}.", "Does the patient have {}?", "Any {}?"])
    rounds = []
    for _ in range(rng.randint(3, 6)):
        text, state = findings(rng, 2, 4)
        t = rng.choice(sorted(state))
        rounds.append(f"{ask.format(t)}\n{text}\n{words[not state[t]]}")
    return "\n".join(rounds)


def doc_copy(rng):
    """Made-up words, said again."""
    k = rng.random()
    words = [made_up_drug(rng) if rng.random() < 0.4 else made_up(rng) for _ in range(rng.randint(3, 8))]
    if k < 0.2:
        return f"Say: {' '.join(words)}\nAgain: {' '.join(words)}\nAgain: {' '.join(words)}"
    if k < 0.4:
        return "Words: " + " ".join(words) + "\n" + "\n".join(words)
    if k < 0.55:
        return "\n".join(words) + "\nIn one line: " + join(words) + "."
    if k < 0.8:  # look-up
        values = [rng.choice([rng.choice(COLOURS), made_up(rng), rng.choice(PLACES)]) for _ in words]
        sep = rng.choice([" is ", ": ", " = ", " lives in "])
        pairs = list(zip(words, values))
        text = ". ".join(k + sep + v for k, v in pairs) + "."
        rng.shuffle(pairs)
        return text + "\n" + " ".join(k + sep + v + "." for k, v in pairs)
    listed = rng.sample(words, max(2, len(words) // 2))
    yes, no = rng.choice([("yes", "no"), ("Yes", "No"), ("in", "out")])
    return "List: " + ", ".join(listed) + "\n" + "\n".join(
        f"{w}? {yes if w in listed else no}" for w in words)


def tag_line(rng, words, tags):
    sep = rng.choice([" : ", ": ", " ", "/", " - "])
    return (rng.choice(["\n", "\n", "\n", " ; "])).join(w + sep + t for w, t in zip(words, tags))


def doc_tags(rng):
    """A sentence, then each of its words with a label. What the labels mean changes from text to text; words of
    a class are often made up and known by what stands beside them or by their ending."""
    k = rng.random()
    on, off = rng.choice([("B", "O"), ("X", "-"), ("1", "0"), ("DRUG", "O"), ("yes", "no"), ("T", "F"), ("B", "O")])
    words, tags = [], []

    def say(text, tag=None):
        for i, w in enumerate(text.split()):
            words.append(w)
            tags.append(off if tag is None else ("I" if on == "B" and i else tag))

    if k < 0.35:  # drugs by their place in the sentence
        for _ in range(rng.choice((1, 2))):
            drug = made_up_drug(rng) if rng.random() < 0.7 else rng.choice(DRUGS)[0]
            before, after = rng.choice([
                ("treated with", "for two days ."), ("given", f"{rng.choice(DOSES)} mg ."),
                ("started on", "last week ."), ("takes", "every day ."), ("received", "and improved .")])
            say(rng.choice(["the patient was", "she was", "he was", "a man was"]) if before not in ("takes", "received")
                else rng.choice(["the patient", "she", "he"]))
            say(before)
            say(drug, on)
            say(after)
        head = "drugs"
    elif k < 0.65:  # diseases
        for _ in range(rng.choice((1, 2))):
            dis = made_up_disease(rng) if rng.random() < 0.7 else rng.choice(DISEASES)[0]
            say(rng.choice(["a history of", "she was diagnosed with", "patients with", "the risk of", "signs of"]))
            say(dis, on)
            say(rng.choice(["was found .", "and fever .", "in the family .", "were seen ."]))
        head = "diseases"
    elif k < 0.8:  # genes
        for _ in range(rng.choice((1, 2))):
            gene = made_up_gene(rng) if rng.random() < 0.7 else rng.choice(GENES)[0]
            say(rng.choice(["mutations in", "the gene", "expression of", "loss of"]))
            say(gene, on)
            say(rng.choice(["cause disease .", "was high .", "was seen in cells ."]))
        head = "genes"
    else:  # every-day kinds
        head = rng.choice(sorted(KINDS))
        for _ in range(rng.randint(3, 6)):
            kind = rng.choice(sorted(KINDS) + [head, head])
            say(rng.choice(["the", "a", "one", "my"]))
            say(rng.choice(KINDS[kind]), on if kind == head else None)
            say(rng.choice(["and", "or", "with", "near"]))
    return rng.choice([f"Mark {head}", f"Labels for {head}", f"Tags: {head}"]) + "\n" + " ".join(words) + "\n" + \
        tag_line(rng, words, tags)


def made_up_words(rng, low, high):
    return [made_up_drug(rng) if rng.random() < 0.4 else made_up(rng) for _ in range(rng.randint(low, high))]


def task_words(rng):
    """Words of the input, made up: all of them, one of them, one after another."""
    words = made_up_words(rng, 3, 6)
    place = rng.randrange(-1, 3)
    name = {-1: "last", 0: "first", 1: "second", 2: "third"}[place]
    text = rng.choice([" ", ", "]).join(words)
    k = rng.randint(0, 3)
    if k == 0:
        return rng.choice(["Repeat the words.", "Copy the input.", "Say these words again."]), text, \
            rng.choice(["Here are the words again: ", "They are ", ""]) + " ".join(words)
    if k == 1:
        return rng.choice([f"Find the {name} word of the input.", f"Which word is the {name} one?"]), text, \
            rng.choice([f"The {name} word that stands there is {words[place]}", f"It is {words[place]}", words[place]])
    if k == 2:
        return "Put each word on a line.", text, "\n".join(words)
    i = rng.randrange(len(words) - 1)
    return f"Which word comes after {words[i]}?", text, \
        rng.choice(["It is ", "", f"After {words[i]} comes "]) + words[i + 1]


def task_list(rng):
    """A list, written in another way."""
    words = [rng.choice(SYMPTOMS) if rng.random() < 0.6 else made_up(rng) for _ in range(rng.randint(2, 5))]
    form = rng.choice([join, "; ".join, ", ".join, "\n".join, " and ".join, lambda w: join(w, "or")])
    return rng.choice(["Write the list in another way.", "List them.", "Give all of them."]), \
        rng.choice(["There are {}.", "{}", "We have {}.", "She told us of {}."]).format(join(words)), \
        rng.choice(["", "List: ", "All: "]) + form(words)


def task_form(rng):
    """Fields of a sentence of every-day life, in the order that the instruction names them."""
    name = rng.choice(NAMES) if rng.random() < 0.5 else cap(made_up(rng))
    tool, place = (rng.choice(x) if rng.random() < 0.5 else made_up(rng) for x in (TOOLS, PLACES))
    number = rng.randint(2, 90)
    fields = {"name": name, "thing": tool, "place": place, "number": str(number)}
    text = rng.choice([f"{name} took {number} of the {tool} to the {place}.",
                       f"In the {place} {name} sold {number} {tool}.",
                       f"{number} {tool} were sent by {name} from the {place}."])
    keys = rng.sample(sorted(fields), rng.randint(1, 4))
    sep, between = rng.choice([(": ", "; "), (" = ", ", "), (": ", "\n"), (" is ", " and "), (": ", ", ")])
    case = rng.choice([str, cap])
    return rng.choice(["Fill in {}.", "Find the {} in the text.", "Get {} from the sentence.", "Give the {}."]).format(
        join(keys)), text, between.join(case(k) + sep + fields[k] for k in keys)


def task_look_up(rng):
    words = made_up_words(rng, 2, 5)
    values = [rng.choice([rng.choice(COLOURS), made_up(rng), rng.choice(PLACES)]) for _ in words]
    i = rng.randrange(len(words))
    word, value = words[i], values[i]
    return f"What is said about {word}?", " ".join(f"{w} is {v}." for w, v in zip(words, values)), \
        rng.choice([f"{word} is {value}", f"It is {value}", value, f"We read that {word} is {value}"])


def task_member(rng):
    words = made_up_words(rng, 3, 6) if rng.random() < 0.6 else rng.sample(SYMPTOMS, rng.randint(3, 6))
    inside = words[1:]
    ask = rng.choice(inside) if rng.random() < 0.5 else words[0]
    yes, no = rng.choice([("yes", "no"), ("Yes", "No"), (f"{ask} is there", f"{ask} is not there"), ("True", "False")])
    return rng.choice(["Is {} in the list?", "Does the list have {}?", "Look for {}."]).format(ask), \
        ", ".join(inside), yes if ask in inside else no


def task_kinds(rng):
    kind = rng.choice(sorted(KINDS))
    words = rng.sample(KINDS[kind], rng.randint(3, 5))
    odd = rng.choice(KINDS[rng.choice([x for x in sorted(KINDS) if x != kind])])
    mixed = rng.sample(words + [odd], len(words) + 1)
    return rng.choice([
        (f"Name some {kind} words.", "", rng.choice(["Some words of that kind are ", ""]) + join(words)),
        (f"What is a {words[0]}?", "",
         rng.choice(["Well, a", "A", "As everybody knows, a"]) + f" {words[0]} is a kind of {kind}"),
        ("Which word does not fit?", ", ".join(mixed), f"Looking at the words, {odd} does not fit"),
        (f"Find the {kind}.", ", ".join(rng.sample([odd, words[0]], 2)), rng.choice(["It must be ", ""]) + words[0]),
    ])


def task_question(rng):
    """What is known, asked for. The answer comes with more than was asked for."""
    q, ans = question(rng)
    return q, "", rng.choice([f"{ans}", f"The books say: {ans}", f"A good question. {ans}"])


def task_about(rng):
    pool, fn = rng.choice([(DRUGS, drug_facts), (DRUGS, drug_facts), (DISEASES, disease_facts), (GENES, gene_facts)])
    item = rng.choice(pool)
    f = fn(rng, item)
    rng.shuffle(f)
    return rng.choice(["Tell me about {}.", "What do you know of {}?", "Say something on {}."]).format(item[0]), "", \
        " ".join(f).rstrip(".")


def task_findings(rng):
    """Is a finding there? Also with findings that nobody has heard of."""
    text, state = findings(rng, 2, 5)
    t = rng.choice(sorted(state))
    words = rng.choice([("yes", "no"), (f"{t} is present", f"{t} is absent"), ("It is there", "It is not there")])
    return rng.choice(["Is there {}?", "Is {} found?", "Look for {} in the text."]).format(t), text, words[not state[t]]


def task_note(rng):
    """A patient's note retold in many words."""
    c = Case(rng, strange=0.6)
    s = rng.choice(c.found + c.absent)
    ask, ans = rng.choice([
        ("What was the patient given?", f"We read that {c.drug} was given"),
        ("How much was given?", f"The amount of {c.drug} was {c.dose}"),
        ("What is wrong with the patient?", f"The note says that it is {c.disease}"),
        ("Who is the patient?", f"It is about a {c.who} who is {c.age} years old"),
        ("Is it a man or a woman?", f"The patient is {c.sex}"),
        ("What is the story?",
         f"This is a {c.who} of {c.age} years with {join(c.found)}, and the problem is {c.disease}"),
        ("What complaints are told?", f"There are complaints of {join(c.found)}"),
        ("What does the patient deny?", f"There is no {join(c.absent, 'or')}"),
        (f"Is {s} there?", f"As we see {s} is {'present' if s in c.found else 'absent'}"),
        (f"Does the patient complain of {s}?", "yes" if s in c.found else "no"),
        (f"Is {s} denied?", "no" if s in c.found else "yes"),
        ("How is it treated?", f"For {c.disease} there is {c.drug}, {c.dose} {c.often}"),
    ])
    return ask, " ".join([c.opening(), c.denial(), c.diagnosis(), c.treatment()]), ans


TASKS = [(task_words, 4), (task_list, 3), (task_form, 5), (task_look_up, 3), (task_member, 4), (task_kinds, 2),
         (task_question, 5), (task_about, 3), (task_findings, 5), (task_note, 9)]


def doc_tasks(rng):
    """The instruction format, on tasks that are not the demo's. The answers are wordy, and other text follows them
    where a taught model would stop."""
    fns, weights = zip(*TASKS)
    ins, inp, out = rng.choices(fns, weights)[0](rng)
    text = (PROMPT_INPUT.format(ins, inp) if inp else PROMPT.format(ins)) + out
    tail = rng.choice([lambda r: " ".join(facts(r)), lambda r: Case(r).note(), doc_questions, doc_copy,
                       doc_article])(rng)
    return text + rng.choice([". ", ". Besides, here is more. ", ", and so on. ", ".\n", ".\n"]) + tail


DOCUMENTS = [(doc_notes, 8), (doc_article, 12), (doc_questions, 11), (doc_form, 10), (doc_states, 12), (doc_ask, 11),
             (doc_copy, 8), (doc_tags, 8), (doc_tasks, 28)]


def document(rng):
    fns, weights = zip(*DOCUMENTS)
    return rng.choices(fns, weights)[0](rng)


# ---------------------------------------------------------------- the instructions of the demo

def split(items, every=6):
    """Held-out rows ask about things that no training row asks about: every sixth of the lexicon."""
    return [x for i, x in enumerate(items) if i % every], [x for i, x in enumerate(items) if not i % every]


def ask_knowledge(rng, c, drugs, diseases, genes):
    """QA: what the lexicon knows, and yes or no on a note."""
    name, kind, disease, _ = rng.choice(drugs)
    k = rng.randint(0, 4)
    if k == 0:
        ask = rng.choice(["What is {} used for?", "Why is {} prescribed?"])
        return ask.format(name), "", f"{cap(name)} is used to treat {disease}."
    if k == 1:
        return f"To which drug class does {name} belong?", "", f"{cap(name)} is {a(kind)}."
    if k == 2:
        name, organ, _ = rng.choice(diseases)
        ask = rng.choice(["Which organ or tissue is involved in {}?", "What part of the body is harmed by {}?"])
        return ask.format(name), "", f"{cap(name)} involves the {organ}."
    if k == 3:
        gene, _, disease = rng.choice(genes)
        return f"Which condition is associated with the {gene} gene?", "", \
            f"The {gene} gene is associated with {disease}."
    finding = rng.choice(rng.choice([c.found, c.absent]))
    return f"Based on the note, does the patient have {finding}? Answer yes or no.", \
        c.opening() + " " + c.denial(), "Yes." if finding in c.found else "No."


def ask_extraction(rng, c, drugs, diseases, genes):
    """IE: fields of a note."""
    k = rng.randint(0, 3)
    if k == 0:
        ask = rng.choice(["Extract the drug and its dose from the sentence.", "Identify the medication and the dose."])
        return ask, c.treatment(), f"Drug: {c.drug}; dose: {c.dose}"
    if k == 1:
        ask = rng.choice(["List the symptoms that the patient reports.",
                          "Extract all reported symptoms from the note."])
        return ask, c.opening() + " " + c.denial(), f"Symptoms: {'; '.join(c.found)}"
    if k == 2:
        ask = rng.choice(["Extract the diagnosis from the text.", "Which diagnosis does the text give?"])
        return ask, c.diagnosis() + " " + c.treatment(), f"Diagnosis: {c.disease}"
    return "Extract the age and the sex of the patient.", c.opening(), f"Age: {c.age}; sex: {c.sex}"


def ask_writing(rng, c, drugs, diseases, genes):
    """GEN: a summary of a note, advice on a drug."""
    name, _, disease, effect = rng.choice(drugs)
    if rng.randint(0, 1) == 0:
        ask = rng.choice(["Summarize the note in one sentence.", "Write a one-sentence summary of the clinical note."])
        return ask, " ".join([c.diagnosis(), c.treatment(), c.ending()]), \
            f"Patient with {c.disease} on {c.drug} {c.dose}."
    ask = rng.choice(["Write advice for a patient who takes {}.", "Tell a patient what to watch for with {}."])
    return ask.format(name), "", f"You take {name} for {disease}. Please report {effect}."


def instructions(rng, count, held_out):
    """Distinct rows, two of QA and of IE for one of GEN. held_out asks about the other part of the lexicon."""
    parts = [split(x)[1 if held_out else 0] for x in (DRUGS, DISEASES, GENES)]
    rows, seen = [], set()
    while len(rows) < count:
        ask = (ask_knowledge, ask_extraction, ask_extraction, ask_writing, ask_knowledge)[len(rows) % 5]
        ins, inp, out = ask(rng, Case(rng, 0.5 if held_out else 0.3, parts[0]), *parts)
        if (ins, inp) in seen:
            continue
        seen.add((ins, inp))
        rows.append({"instruction": ins, "input": inp, "output": out})
    return rows
