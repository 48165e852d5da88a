package bioinstruct

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// examples is how many seed tasks each prompt shows [F].
const examples = 3

// DefaultPrompt is the wording of this project; that of BioInstruct's authors is not known.
const DefaultPrompt = `You are helping to build a varied set of biomedical instruction tasks, with which a language model will be trained. Write {count} new tasks, numbered from {first} on, after the {examples} examples below.

Each task has an instruction, an input and an output.
- Instructions are about biomedicine or health care: clinical notes, patients' questions, drugs, genes, diseases, tests, trials, papers, public health and the like. No two are alike, and none is a variant of an example. Vary the verbs, the form (question or request), the length and the kind of task: answering questions, extracting information from text, writing text, and others such as classifying, calculating or ranking.
- An instruction is English, one or two sentences, and can be done with text alone.
- The input is concrete material that the instruction needs, such as a sentence of a report or a list of values; made up, never of a real person. Where an instruction needs none, write <noinput>.
- The output is what an expert would answer: correct, complete, and no longer than needed.
- Write nothing else, and use exactly the form of the examples.

{tasks}`

// noInput stands for an empty input in prompts.
const noInput = "<noinput>"

// separator is the line between tasks.
const separator = "###"

// checkPrompt says what is wrong with a prompt of a user.
func checkPrompt(prompt string) error {
	var errs []error
	for _, p := range []string{"{count}", "{tasks}"} {
		if !strings.Contains(prompt, p) {
			errs = append(errs, fmt.Errorf("the prompt has no %s", p))
		}
	}
	return errors.Join(errs...)
}

// fill puts seed tasks into a prompt and asks for count more. What tasks say is not looked at for placeholders.
func fill(prompt string, shown []Seed, count int) string {
	return strings.NewReplacer(
		"{count}", strconv.Itoa(count),
		"{first}", strconv.Itoa(len(shown)+1),
		"{examples}", strconv.Itoa(len(shown)),
		"{tasks}", tasks(shown),
	).Replace(prompt)
}

// tasks writes tasks in the form that is asked for, and begins the next.
func tasks(shown []Seed) string {
	var b strings.Builder
	for i, s := range shown {
		input := s.Input
		if input == "" {
			input = noInput
		}
		fmt.Fprintf(&b, "%s\nTask %d\nInstruction: %s\nInput: %s\nOutput: %s\n", separator, i+1, oneLine(s.Instruction), input, s.Output)
	}
	fmt.Fprintf(&b, "%s\nTask %d\n", separator, len(shown)+1)
	return b.String()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// choose returns k different numbers below n, 0 <= k <= n: a function of the seed and the request's number alone.
func choose(seed uint64, request, n, k int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	for i := range k {
		var b [24]byte
		binary.LittleEndian.PutUint64(b[0:], seed)
		binary.LittleEndian.PutUint64(b[8:], uint64(request))
		binary.LittleEndian.PutUint64(b[16:], uint64(i))
		sum := sha256.Sum256(b[:])
		r, _ := bits.Mul64(binary.LittleEndian.Uint64(sum[:]), uint64(n-i)) // below n-i
		all[i], all[i+int(r)] = all[i+int(r)], all[i]
	}
	return all[:k]
}
