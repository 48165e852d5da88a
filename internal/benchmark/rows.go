package benchmark

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/biolora/biolora/train/instruct"
)

// BioInstruct as it is trained on: tokens of LLaMA-2 in the Alpaca template, measured on 2,501 of its rows.
const (
	BioInstructRows   = 25005
	BioInstructTokens = 168.4 // of a row, on average
)

// lengths and labels are of BioInstruct's rows, ordered by length: the means of each sixteenth of them.
var (
	lengths = [...]float64{86, 105, 116, 125, 133, 140, 147, 154, 161, 169, 178, 187, 200, 218, 245, 329}
	labels  = [...]float64{12, 22, 30, 34, 40, 47, 55, 57, 64, 67, 74, 77, 86, 99, 118, 146}
)

// What rows begin with in the Alpaca template: 11 tokens are the same in all of them, 39 in those with an input, 29 in
// those without one, which is one in 16.
const (
	headOfAll    = 11
	headInput    = 39
	headNoInput  = 29
	rowsPerEmpty = 16
)

// Shape is what made-up rows are like.
type Shape struct {
	Rows int
	// Tokens of each row, all with a label, and no two rows that begin alike. 0: lengths, labels and common beginnings are
	// those of BioInstruct, as evenly as so few rows can have them.
	Tokens int
	Vocab  int
	// MostTokens is where longer rows are cut; 0: nowhere.
	MostTokens int
}

// MakeRows makes rows of random tokens, the same ones each time.
func MakeRows(s Shape) (*instruct.Dataset, error) {
	rng := rand.New(rand.NewPCG(1, uint64(s.Rows)))
	tokens := func(n int) []int32 {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(rng.IntN(s.Vocab))
		}
		return ids
	}
	all, input, noInput := tokens(headOfAll), tokens(headInput-headOfAll), tokens(headNoInput-headOfAll)
	var text bytes.Buffer
	for _, i := range scattered(s.Rows) {
		n, learnt := s.Tokens, s.Tokens
		var ids []int32
		if s.Tokens == 0 {
			at := (float64(i) + 0.5) / float64(s.Rows)
			n, learnt = quantile(lengths[:], at), quantile(labels[:], at)
			ids = append(ids, all...)
			if i%rowsPerEmpty == rowsPerEmpty/2 {
				ids = append(ids, noInput...)
			} else {
				ids = append(ids, input...)
			}
		}
		ids = append(ids, tokens(n-len(ids))...)
		if s.MostTokens > 0 {
			ids = ids[:min(len(ids), s.MostTokens)]
		}
		row := struct {
			IDs    []int32 `json:"input_ids"`
			Labels []int32 `json:"labels"`
		}{ids, slices.Clone(ids)}
		for t := range max(0, len(ids)-learnt) {
			row.Labels[t] = instruct.Masked
		}
		line, err := json.Marshal(row)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "%s\n", line)
	}
	return instruct.Read("made-up rows", &text, instruct.Alpaca)
}

// quantile interpolates the means of equal parts of a distribution.
func quantile(means []float64, at float64) int {
	x := max(0, min(at*float64(len(means))-0.5, float64(len(means)-1)))
	i := min(int(x), len(means)-2)
	return int(means[i] + (x-float64(i))*(means[i+1]-means[i]) + 0.5)
}

// scattered is 0..n-1 in an order in which long and short rows stand side by side.
func scattered(n int) (order []int) {
	for from := range 3 {
		for i := from; i < n; i += 3 {
			order = append(order, i)
		}
	}
	return order
}
