// Package published has the figures of the two papers that this project follows, each with how it is known, so that a
// table can set a run's figures beside them where task and split are the papers' own.
//
// Sources: Tran, Yang, Yao and Yu, "BioInstruct: instruction tuning of large language models for biomedical natural
// language processing" (2024); Rohanian, Nouriborji and Clifton, "Exploring the Effectiveness of Instruction Tuning in
// Biomedical Language Processing" (2023), the Llama2-MedTuned models.
package published

// Known says how something is known.
type Known uint8

const (
	NotFound Known = iota // nobody said it where we looked
	Read                  // read in the paper or in what its authors published
	Computed              // computed on the data that the authors published
	Inferred              // follows from what they published, without being said there
)

// String returns "not found", "read", "computed" or "inferred".
func (k Known) String() string {
	return [...]string{"not found", "read", "computed", "inferred"}[k]
}

// Tagged is how something is known, as Known.String has it, with the tag that everything this project prints has for it.
func Tagged(known string) string {
	for k, tag := range map[Known]string{NotFound: "[N]", Read: "[F]", Computed: "[C]", Inferred: "[I]"} {
		if k.String() == known {
			return tag + " " + known
		}
	}
	return known
}

// Legend explains the tags.
const Legend = "[F] read in the paper or in what its authors published, [C] computed on the data that they published, [I] inferred, [N] not found"

// The papers.
const (
	BioInstruct = "BioInstruct"
	MedTuned    = "Llama2-MedTuned"
)

// Figure is one number of a paper.
type Figure struct {
	Paper  string
	Task   string // as in the task files of this project
	Model  string // whose figure it is
	Metric string
	Value  float64 // in per cent, Metric's unit in both papers
	Split  string  // on which it was taken: dev (which the corpora call devel or validation) or test; "": see SplitKnown

	ValueKnown, SplitKnown Known
	Note                   string // what has to be said beside it
}

// full is what stands beside every figure of the second paper.
const full = "full fine-tuning; a LoRA run is an adaptation of it"

// medTuned are a task's figures for 7B, 13B and the paper's encoder baseline; 0: not given.
type medTuned struct {
	task, metric, split string
	splitKnown          Known
	encoder             string
	figures             [3]float64
}

var medTunedTable = []medTuned{
	{"ncbi-disease", "entity F1", "dev", Computed, "BioBERT", [3]float64{87.18, 85.69, 88.62}},
	{"bc5cdr-disease", "entity F1", "dev", Computed, "encoder baseline", [3]float64{83.92, 85.46, 86.67}},
	{"bc5cdr-chem", "entity F1", "dev", Computed, "encoder baseline", [3]float64{93.88, 94.51, 94.73}},
	{"bc2gm", "entity F1", "dev", Computed, "encoder baseline", [3]float64{76.46, 79.12, 87.62}},
	{"jnlpba", "entity F1", "", NotFound, "encoder baseline", [3]float64{82.30, 81.31, 80.33}},
	{"i2b2-2012", "entity F1", "", NotFound, "encoder baseline", [3]float64{0, 80.64, 82.98}},
	{"mednli", "accuracy", "dev", Computed, "encoder baseline", [3]float64{0, 89.46, 82.41}},
}

// Figures returns all figures of tasks, in the order of the papers' tables.
func Figures() (fs []Figure) {
	for _, row := range medTunedTable {
		for i, name := range []string{"Llama2-MedTuned-7b", "Llama2-MedTuned-13b", row.encoder} {
			if row.figures[i] == 0 {
				continue
			}
			f := Figure{Paper: MedTuned, Task: row.task, Model: name, Metric: row.metric, Value: row.figures[i],
				Split: row.split, ValueKnown: Read, SplitKnown: row.splitKnown}
			if i < 2 {
				f.Note = full
			}
			fs = append(fs, f)
		}
	}
	return append(fs, Figure{Paper: MedTuned, Task: "mednli", Model: "Llama-2 (base)", Metric: "accuracy", Value: 37.20,
		Split: "dev", ValueKnown: Read, SplitKnown: Computed})
}

// Of returns the figures of a task on a split. Those whose split is not known are returned for every split; their Split
// is empty.
func Of(task, split string) (fs []Figure) {
	for _, f := range Figures() {
		if f.Task == task && (f.Split == split || f.Split == "") {
			fs = append(fs, f)
		}
	}
	return fs
}

// Gain is what BioInstruct's authors report for a group of tasks: how much better than its base model an instruction-
// tuned one is.
type Gain struct {
	Group  string // QA, IE or GEN
	Metric string
	Value  float64 // in per cent
	Known  Known
	// Tasks are those of the group, as in the task files of this project; nil where none of these is compared with them.
	Tasks      []string
	TasksKnown Known
}

// Gains are the gains that the first paper reports.
func Gains() []Gain {
	return []Gain{
		{Group: "QA", Metric: "mean accuracy", Value: 17.3, Known: Read},
		{Group: "IE", Metric: "mean F1", Value: 5.7, Known: Read},
		{Group: "GEN", Metric: "mean score of GPT-4 as a judge", Value: 96, Known: Read,
			Tasks: []string{"mts-dialog", "icliniq", "chatdoctor"}, TasksKnown: Inferred},
	}
}
