package medtuned

import (
	"fmt"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/rows"
)

const chatDoctorFormat = `Files: ChatDoctor's HealthCareMagic-100k.json: records {"input", "output"}, what a patient asks and the doctor's reply. Their
own instruction, the same in all, gives way to one of ours. There is no split: all rows are train.
A row: the patient's text -> the reply.

	{"instruction": "...", "input": "I have had a cough for a week.", "output": "Hello, ..."}
`

func chatDoctorItem(f *fields, _ *Task) item {
	return item{input: f.text("input"), output: f.text("output")}
}

const iCliniqFormat = `Files: ChatDoctor's iCliniq.json: records {"input", "answer_icliniq"}, what a patient asks and the doctor's answer. The answers
of models that stand beside it (answer_chatgpt, answer_chatdoctor) are not used.
A row: the patient's text -> the doctor's answer.

	{"input": "Is this rash serious?", "answer_icliniq": "Hi. I have looked at ..."}
`

func iCliniqItem(f *fields, _ *Task) item {
	return item{input: f.text("input"), output: f.text("answer_icliniq")}
}

const pmcLLaMAFormat = `Files: PMC-LLaMA's instructions: records {"instruction", "input", "output"}; the input may be empty. There is no split: all rows
are train.
A row: the record's own instruction and input -> its output.

	{"instruction": "Answer the question.", "input": "What is anaemia?", "output": "Too few red blood cells."}
`

func pmcLLaMAItem(f *fields, _ *Task) item {
	return item{instruction: f.text("instruction"), input: f.optional("input"), output: f.text("output")}
}

const mtsDialogFormat = `Files: MTS-Dialog's CSV: ID, section_header, section_text, dialogue. The header is one of GENHX, FAM/SOCHX, ROS, ... and is said
in words in those wordings that name the section.
A row: the dialogue -> the text of the section.

	ID,section_header,section_text,dialogue
	0,ALLERGY,No known allergies.,"Doctor: Any allergies?
	Patient: No."
`

// sections are the headers of MTS-Dialog in words.
var sections = map[string]string{
	"ALLERGY": "allergies", "ASSESSMENT": "assessment", "CC": "chief complaint", "DIAGNOSIS": "diagnosis", "DISPOSITION": "disposition",
	"EDCOURSE": "emergency department course", "EXAM": "physical examination", "FAM/SOCHX": "family and social history",
	"GENHX": "history of present illness", "GYNHX": "gynecologic history", "IMAGING": "imaging", "IMMUNIZATIONS": "immunizations",
	"LABS": "laboratory results", "MEDICATIONS": "medications", "OTHER_HISTORY": "other history", "PASTMEDICALHX": "past medical history",
	"PASTSURGICAL": "past surgical history", "PLAN": "plan", "PROCEDURES": "procedures", "ROS": "review of systems",
}

func mtsDialogItem(f *fields, _ *Task) item {
	it := item{input: f.text("dialogue"), output: f.text("section_text")}
	header := f.text("section_header")
	var ok bool
	if it.section, ok = sections[strings.ToUpper(header)]; !ok && header != "" {
		f.fail(`the field "section_header": %q is none of the corpus's 20 sections`, short(header))
	}
	return it
}

const aciBenchFormat = `Files: ACI-Bench: {"data": [{"src", "tgt", "file"}]}, as in its challenge_data_json, or records {"dialogue", "note"}, as in its
CSV.
A row: the dialogue -> the note.

	{"data": [{"src": "[doctor] hello\n[patient] hi", "tgt": "CHIEF COMPLAINT\n\nCough.", "file": "x1"}]}
`

func aciBenchItem(f *fields, _ *Task) item {
	return item{input: f.text("src", "dialogue"), output: f.text("tgt", "note")}
}

const medicationStatusFormat = `Files: medication_status of clinical-ie (Agrawal et al., 2022; mitclinicalml/clinical-ie): records {"snippet",
"active_medications", "discontinued_medications", "neither_medications"}, each a list, in CSV the JSON text of one.
A row: the snippet -> "name (active)", "name (discontinued)" or "name (neither)" for each medication, apart by commas, or
"None". A name with a comma in it is a bad record.

	{"snippet": "Stop aspirin.", "active_medications": [], "discontinued_medications": ["aspirin"], "neither_medications": []}
`

func medicationStatusItem(f *fields, task *Task) item {
	it := item{input: f.text("snippet")}
	var found []string
	for _, status := range []string{"active", "discontinued", "neither"} {
		for _, name := range f.list(status + "_medications") {
			if name == "" || strings.ContainsAny(name, ",\n") {
				f.fail("%s_medications: expected a name without commas, got %q", status, short(name))
			}
			found = append(found, fmt.Sprintf("%s (%s)", name, status))
		}
	}
	if it.output = strings.Join(found, ", "); it.output == "" {
		it.output = task.None
	}
	return it
}

const coreferenceFormat = `Files: coreference of clinical-ie (Agrawal et al., 2022; mitclinicalml/clinical-ie): records {"snippet", "pronoun", "antecedent"}.
The names of the last two are remembered, not checked against the corpus: compare them with your copy.
A row: the snippet and a line "Pronoun: ..." -> what the pronoun stands for.

	{"snippet": "The catheter was pulled since it was blocked.", "pronoun": "it", "antecedent": "The catheter"}
`

func coreferenceItem(f *fields, _ *Task) item {
	return item{input: f.text("snippet") + "\nPronoun: " + f.text("pronoun"), output: f.text("antecedent")}
}

// converters are all converters, by name.
var converters = sorted(append(tagged(),
	Converter{Name: "gad", Format: gadFormat, Seen: "JSON Lines", Told: "CSV, TSV", items: perRecord(rows.Shape{}, gadItem)},
	Converter{Name: "i2b2-2010", Format: i2b2RelationFormat, More: conceptPairFiles, Told: "BLUE's TSV; .con, .rel and .txt",
		items: byExtension(perRecord(rows.Shape{}, i2b2RelationItem), map[string]fileFunc{".con": conceptPairs, ".rel": notByItself, ".txt": notByItself})},
	Converter{Name: "mednli", Format: medNLIFormat, Told: "JSON Lines", items: perRecord(rows.Shape{}, medNLIItem)},
	Converter{Name: "hoc", Format: hocFormat, More: hallmarkFiles, Seen: hallmarksSeen, Told: hallmarksTold,
		items: byExtension(perRecord(rows.Shape{}, hocItem), map[string]fileFunc{".txt": abstract})},
	Converter{Name: "hoc-documents", Format: hocDocumentsFormat, More: hallmarkFiles, Seen: hallmarksSeen, Told: hallmarksTold, items: hocDocuments},
	Converter{Name: "medqa", Format: medQAFormat, Seen: "JSON with sentence and gold", Told: "JSON Lines with options", items: perRecord(rows.Shape{}, medQAItem)},
	Converter{Name: "medmcqa", Format: medMCQAFormat, Told: "JSON Lines", items: medMCQA},
	Converter{Name: pubMedQA, Format: pubMedQAFormat, Seen: "JSON", items: pubMedQAItems},
	Converter{Name: "bioasq", Format: bioASQFormat, Told: "JSON", items: perRecord(rows.Shape{Under: "questions"}, bioASQItem)},
	Converter{Name: "chatdoctor", Format: chatDoctorFormat, Told: "JSON", trainOnly: true, items: perRecord(rows.Shape{}, chatDoctorItem)},
	Converter{Name: "icliniq", Format: iCliniqFormat, Told: "JSON", items: perRecord(rows.Shape{}, iCliniqItem)},
	Converter{Name: "pmc-llama", Format: pmcLLaMAFormat, Told: "JSON", trainOnly: true, items: perRecord(rows.Shape{}, pmcLLaMAItem)},
	Converter{Name: "mts-dialog", Format: mtsDialogFormat, Seen: "CSV", items: perRecord(rows.Shape{}, mtsDialogItem)},
	Converter{Name: "aci-bench", Format: aciBenchFormat, Seen: "JSON of the challenge", Told: "CSV", items: perRecord(rows.Shape{Under: "data"}, aciBenchItem)},
	Converter{Name: "medication-status", Format: medicationStatusFormat, Told: "CSV, JSON Lines", items: perRecord(rows.Shape{}, medicationStatusItem)},
	Converter{Name: "coreference", Format: coreferenceFormat, Told: "CSV, JSON Lines", items: perRecord(rows.Shape{}, coreferenceItem)},
))

func sorted(cs []Converter) []Converter {
	slices.SortFunc(cs, func(a, b Converter) int { return strings.Compare(a.Name, b.Name) })
	return cs
}
