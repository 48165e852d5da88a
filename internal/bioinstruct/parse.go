package bioinstruct

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	"github.com/biolora/biolora/train/instruct"
)

// Task is an instruction, as a model wrote it.
type Task struct {
	Instruction string `json:"instruction"`
	Input       string `json:"input"`
	Output      string `json:"output"`
}

// field is how a part of a task begins: "Instruction:", "4. Input:", "**Output**:", "Task 4 - Instruction:" and the like.
var field = regexp.MustCompile(`(?i)^[\s>*#_-]*(?:task\s*)?(?:\d+\s*[.):\-]*\s*)?[*_]*(instruction|input|output)[*_]*\s*:[*_]*[ \t]*`)

// between is a line between tasks: "###", "---", "Task 4", "4.", "**Task 4:**".
var between = regexp.MustCompile(`(?i)^\s*(?:#{3,}|-{3,}|={3,}|[#*_\s]*task\s*\d+[.:)*_\s]*|\d+[.)]?)\s*$`)

// fence is the begin or end of a block of code.
var fence = regexp.MustCompile("(?m)^\\s*```[A-Za-z]*\\s*$")

// parse takes a model's answer apart: tasks in the form of the prompt, or JSON, in an array or an object after another.
// Pieces that are no tasks are counted in unreadable. Of a truncated answer the last piece, which may lack its end, is
// left out; cut says so.
func parse(text string, truncated bool) (tasks []Task, unreadable int, cut bool) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	bare := strings.TrimSpace(fence.ReplaceAllString(text, ""))
	if strings.HasPrefix(bare, "[") || strings.HasPrefix(bare, "{") {
		tasks, unreadable, broken := parseJSON(bare)
		if broken && !truncated {
			unreadable++
		}
		return tasks, unreadable, truncated
	}
	pieces := parseText(bare)
	if truncated && len(pieces) > 0 {
		pieces = pieces[:len(pieces)-1]
	}
	for _, p := range pieces {
		if p.instruction == nil || p.output == nil || p.Instruction == "" || p.twice {
			unreadable++
			continue
		}
		tasks = append(tasks, p.Task)
	}
	return tasks, unreadable, truncated
}

// piece is a task as far as it goes. Its fields are gathered in builders, nil where there is none.
type piece struct {
	Task
	instruction, input, output *strings.Builder
	twice                      bool // it has a field twice: where the first ends is not known
}

// of returns the field of a name.
func (p *piece) of(name string) **strings.Builder {
	switch name {
	case "instruction":
		return &p.instruction
	case "input":
		return &p.input
	}
	return &p.output
}

// parseText reads fields that begin lines. An instruction begins a new task.
func parseText(text string) (pieces []piece) {
	var now *piece
	var to *strings.Builder // field that lines go to
	flush := func() {
		if now != nil {
			now.Task = Task{part(now.instruction), part(now.input), part(now.output)}
			pieces = append(pieces, *now)
		}
		now, to = nil, nil
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if m := field.FindStringSubmatch(line); m != nil {
			name := strings.ToLower(m[1])
			if name == "instruction" {
				flush()
			}
			if now == nil {
				now = &piece{}
			}
			now.twice = now.twice || *now.of(name) != nil
			to = &strings.Builder{}
			*now.of(name) = to
			line = line[len(m[0]):]
		} else if between.MatchString(line) && ends(lines[i+1:]) {
			flush()
			continue
		}
		if to != nil {
			to.WriteString(line + "\n")
		}
	}
	flush()
	return pieces
}

// ends reports whether a line that may stand between tasks does: nothing follows, or other such lines and then an
// instruction. Outputs may have rules and numbers on lines of their own.
func ends(rest []string) bool {
	for _, line := range rest {
		if m := field.FindStringSubmatch(line); m != nil {
			return strings.EqualFold(m[1], "instruction")
		}
		if strings.TrimSpace(line) != "" && !between.MatchString(line) {
			return false
		}
	}
	return true
}

func part(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	return strings.TrimSpace(b.String())
}

// parseJSON reads objects with the three fields, one after another or in arrays, up to where the text is JSON
// no more; broken says that there is such a place.
func parseJSON(text string) (tasks []Task, unreadable int, broken bool) {
	for {
		text = strings.TrimLeft(text, "[], \n\t")
		if text == "" {
			return tasks, unreadable, false
		}
		d := json.NewDecoder(strings.NewReader(text))
		var o struct{ Instruction, Input, Output *string }
		if err := d.Decode(&o); err != nil {
			return tasks, unreadable, true
		}
		text = text[d.InputOffset():]
		if o.Instruction == nil || o.Output == nil || strings.TrimSpace(*o.Instruction) == "" {
			unreadable++
			continue
		}
		t := Task{Instruction: strings.TrimSpace(*o.Instruction), Output: strings.TrimSpace(*o.Output)}
		if o.Input != nil {
			t.Input = strings.TrimSpace(*o.Input)
		}
		tasks = append(tasks, t)
	}
}

// empties are inputs of models that say that there is none: those that training takes for none, and more.
var empties = append(instruct.EmptyInputs(), noInput, "(no input required)", "no input required", "no input required.")

// normal makes an input that only says that there is none empty.
func normal(input string) string {
	if slices.Contains(empties, strings.ToLower(strings.TrimSpace(input))) {
		return ""
	}
	return strings.TrimSpace(input)
}
