package bioinstruct

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/golden"
)

func TestParse(t *testing.T) {
	two := []Task{{"Say what A is.", "B\nC", "D\n\nE"}, {"F?", "<noinput>", "G"}}
	for name, c := range map[string]struct {
		text       string
		truncated  bool
		want       []Task
		unreadable int
		cut        bool
	}{
		"as asked":      {"Instruction: Say what A is.\nInput: B\nC\nOutput: D\n\nE\n###\nTask 5\nInstruction: F?\nInput: <noinput>\nOutput: G\n", false, two, 0, false},
		"begun again":   {"###\nTask 4\nInstruction: Say what A is.\nInput: B\nC\nOutput: D\n\nE\n\nTask 5\nInstruction: F?\nInput: <noinput>\nOutput: G", false, two, 0, false},
		"decorated":     {"**Task 4**\n**Instruction:** Say what A is.\n**Input:** B\nC\n**Output:** D\n\nE\n---\n## Task 5:\n- Instruction: F?\n- Input: <noinput>\n- Output: G", false, two, 0, false},
		"numbers":       {"4. Instruction: Say what A is.\n4. Input: B\nC\n4. Output: D\n\nE\n###\n5. Instruction: F?\r\n5. Input: <noinput>\r\n5. Output: G", false, two, 0, false},
		"in a fence":    {"```text\nInstruction: F?\nInput: <noinput>\nOutput: G\n```", false, two[1:], 0, false},
		"JSON":          {"```json\n[{\"instruction\":\"Say what A is.\",\"input\":\"B\\nC\",\"output\":\"D\\n\\nE\"},\n{\"instruction\":\"F?\",\"input\":\"<noinput>\",\"output\":\"G\"}]\n```", false, two, 0, false},
		"JSON lines":    {"{\"instruction\":\"F?\",\"input\":\"<noinput>\",\"output\":\"G\"}\n{\"instruction\":\"no output\"}\n", false, two[1:], 1, false},
		"JSON, cut":     {"[{\"instruction\":\"F?\",\"input\":\"<noinput>\",\"output\":\"G\"},{\"instru", true, two[1:], 0, true},
		"text, cut":     {"Instruction: F?\nInput: <noinput>\nOutput: G\n###\nTask 5\nInstruction: H?\nInput: I\nOutput: and then", true, two[1:], 0, true},
		"cut in a task": {"Instruction: F?\nInput: <noinput>\nOutput: G\n###\nTask 5\nInstruction: H?\nInp", true, two[1:], 0, true},
		"a refusal":     {"I cannot help with that.", false, nil, 0, false},
		"no output":     {"Instruction: F?\nInput: x\n###\nTask 5\nInstruction: F?\nInput: <noinput>\nOutput: G", false, two[1:], 1, false},
		"rules inside":  {"Instruction: F?\nInput: x\nOutput: 1\n---\n2\n\n### \nnot the end", false, []Task{{"F?", "x", "1\n---\n2\n\n### \nnot the end"}}, 0, false},
		"a field twice": {"Instruction: Write a task.\nInput: x\nOutput: This one:\nInput: a\nOutput: b\n###\nTask 5\nInstruction: F?\nInput: <noinput>\nOutput: G", false, two[1:], 1, false},
		"words inside":  {"Instruction: F?\nInput: x\nOutput: the input is small\nOutcome: good", false, []Task{{"F?", "x", "the input is small\nOutcome: good"}}, 0, false},
	} {
		got, unreadable, cut := parse(c.text, c.truncated)
		if d := cmp.Diff(c.want, got); d != "" || unreadable != c.unreadable || cut != c.cut {
			t.Errorf("%s: %d unreadable, cut %v, %s", name, unreadable, cut, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("###\nTask 4\nInstruction: a\nInput: b\nOutput: c\n###", true)
	f.Add("[{\"instruction\":\"a\",\"output\":\"b\"}]", false)
	f.Fuzz(func(t *testing.T, text string, truncated bool) {
		got, unreadable, _ := parse(text, truncated)
		if len(got)+unreadable > len(text) {
			t.Errorf("%d tasks of %d bytes", len(got)+unreadable, len(text))
		}
		for _, task := range got {
			if strings.TrimSpace(task.Instruction) == "" {
				t.Errorf("a task without an instruction: %+v", task)
			}
		}
	})
}

func TestForm(t *testing.T) {
	for instruction, want := range map[string]Reason{
		"Describe the heart's valves.":         "",
		"Describe the heart.":                  TooShort,
		strings.Repeat("word ", 150):           "",
		strings.Repeat("word ", 151):           TooLong,
		"Draw the heart with its valves.":      Blacklisted,
		"Explain what the Images of it show.":  Blacklisted,
		"Explain what a radiograph shows us.":  "",
		"Write a program that adds doses.":     Program,
		"Écrire une phrase sur le foie.":       NotASCII,
		"(Describe the heart's four valves.":   Punctuation,
		"2 drugs are given: which is stronger": "",
	} {
		if got := form(Task{Instruction: instruction, Output: "x"}); got != want {
			t.Errorf("%.40q: %q, want %q", instruction, got, want)
		}
	}
	if got := form(Task{Instruction: "Describe the heart's valves.", Output: " \n"}); got != NoOutput {
		t.Errorf("no output: %q", got)
	}
}

func TestFilter(t *testing.T) {
	f := NewFilter([]Seed{{Instruction: "Name the gene of the disease."}}, 1)
	defer f.Close()
	for _, c := range []struct {
		instruction string
		want        Reason
		near        string
	}{
		{"Name the gene of this disease.", LikeSeed, "seed 1, 0.833"},
		{"What are the symptoms of gout?", "", ""},
		{"What are the symptoms of measles?", LikeAccepted, "accepted task 1, 0.833"},
		// 7 of 10 words: exactly 0.7 is accepted.
		{"one two three four five six seven eight nine ten", "", ""},
		{"one two three four five six seven a b c", "", ""},
	} {
		if why, near := f.Accept(Task{Instruction: c.instruction, Output: "x"}); why != c.want || near != c.near {
			t.Errorf("%q: %q %q, want %q %q", c.instruction, why, near, c.want, c.near)
		}
	}
}

// TestSeeds: our own seeds are 80, of every category, and pass our own filter.
func TestSeeds(t *testing.T) {
	seeds, err := Seeds()
	if err != nil || len(seeds) != 80 {
		t.Fatal(len(seeds), err)
	}
	f := NewFilter(nil, 1)
	defer f.Close()
	names, of, empty := map[string]bool{}, map[string]int{}, 0
	for _, s := range seeds {
		if why, near := f.Accept(Task{s.Instruction, s.Input, s.Output}); why != "" {
			t.Errorf("%s: %s %s", s.Name, why, near)
		}
		names[s.Name] = true
		of[s.Category]++
		if s.Input == "" {
			empty++
		}
		shown, unreadable, _ := parse(tasks([]Seed{s}), false)
		if len(shown) != 1 || unreadable > 1 || shown[0].Instruction != s.Instruction || shown[0].Output != s.Output || normal(shown[0].Input) != s.Input {
			t.Errorf("%s is not read as it is written: %+v", s.Name, shown)
		}
	}
	if len(names) != 80 || of["QA"] < 10 || of["IE"] < 10 || of["GEN"] < 10 || of["other"] < 5 || empty < 8 {
		t.Errorf("%d names, %v, %d without input", len(names), of, empty)
	}
}

func TestReadSeeds(t *testing.T) {
	path := golden.Shared(t, "data", "seeds", "self_instruct_seed_tasks.jsonl")
	seeds, err := ReadSeeds(path)
	if err != nil || len(seeds) != 175 || seeds[0].Name != "breakfast_suggestion" || seeds[0].Output == "" {
		t.Errorf("%d seeds, %v", len(seeds), err)
	}
}

func TestReadSeedsWrong(t *testing.T) {
	path := t.TempDir() + "/seeds.jsonl"
	text := `{"id":"1","instruction":"i","instances":[{"input":"","output":"o"}]}
{"id":"2","instances":[{"output":""}],"category":"x"}
{"id":"3","instruction":"i","instances":[]}
nothing
`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := ReadSeeds(path)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{path + ":2: ", "instruction: want a text", "output: want a text", `category "x" is none of`, path + ":3: instances: want a list", path + ":4: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := parseSeeds("few", []byte(strings.SplitAfter(text, "\n")[0])); err == nil || !strings.Contains(err.Error(), "few: 1 seed tasks") {
		t.Error(err)
	}
}

// TestRealRows: the filter rejects nothing of BioInstruct, our seeds among what it compares with.
func TestRealRows(t *testing.T) {
	text, err := os.ReadFile(golden.Shared(t, "data", "bioinstruct", "bioinstruct-2501.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []Task
	if err := json.Unmarshal(text, &all); err != nil || len(all) != 2501 {
		t.Fatal(len(all), err)
	}
	seeds, err := Seeds()
	if err != nil {
		t.Fatal(err)
	}
	f := NewFilter(seeds, 2)
	defer f.Close()
	for i, task := range all {
		if why, near := f.Accept(task); why != "" {
			t.Errorf("row %d, %q: %s %s", i, task.Instruction, why, near)
		}
	}
}
