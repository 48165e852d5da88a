package metrics

import (
	"fmt"
	"maps"
	"slices"
)

// PRF is precision, recall and their harmonic mean; each is 0 where it is undefined, as scikit-learn's zero_division=0
// has it.
type PRF struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
}

// Counts are what precision and recall of a class are made of.
type Counts struct {
	Hits      int `json:"hits"`      // predicted, and right
	Predicted int `json:"predicted"` // predicted at all
	Gold      int `json:"gold"`      // in the gold standard: the support
}

// PRF of these counts.
func (c Counts) PRF() PRF {
	return prf(float64(c.Hits), float64(c.Predicted), float64(c.Gold))
}

func prf(hits, predicted, gold float64) (s PRF) {
	if predicted > 0 {
		s.Precision = hits / predicted
	}
	if gold > 0 {
		s.Recall = hits / gold
	}
	if predicted+gold > 0 {
		s.F1 = 2 * hits / (predicted + gold)
	}
	return s
}

// scaled adds s times a factor to p.
func (p *PRF) scaled(s PRF, factor float64) {
	p.Precision += s.Precision * factor
	p.Recall += s.Recall * factor
	p.F1 += s.F1 * factor
}

// Class is how well one class, label or type of entity was found.
type Class struct {
	Name string `json:"name"`
	Counts
	PRF
}

// Report has the classes that occur in gold or prediction, sorted by name, and their averages: Micro of all counts
// added up, Macro of classes alike, Weighted by gold counts.
type Report struct {
	Classes  []Class `json:"classes"`
	Micro    PRF     `json:"micro"`
	Macro    PRF     `json:"macro"`
	Weighted PRF     `json:"weighted"`
}

// averages computes the means over classes from sums of hits, predicted and gold for each. Classes that do not occur
// are left out.
func averages(sums []float64) (micro, macro, weighted PRF) {
	var hits, predicted, gold, classes float64
	for i := 0; i+2 < len(sums); i += 3 {
		h, p, g := sums[i], sums[i+1], sums[i+2]
		if p+g == 0 {
			continue
		}
		hits, predicted, gold, classes = hits+h, predicted+p, gold+g, classes+1
		s := prf(h, p, g)
		macro.scaled(s, 1)
		weighted.scaled(s, g)
	}
	return prf(hits, predicted, gold), macro.over(classes), weighted.over(gold)
}

// over divides by n; by 0 it gives 0.
func (p PRF) over(n float64) (q PRF) {
	if n > 0 {
		q = PRF{p.Precision / n, p.Recall / n, p.F1 / n}
	}
	return q
}

// newReport makes a report of the classes that occur.
func newReport(counts map[string]Counts) (r Report) {
	var sums []float64
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		c := counts[name]
		if c.Predicted+c.Gold == 0 {
			continue
		}
		r.Classes = append(r.Classes, Class{name, c, c.PRF()})
		sums = append(sums, float64(c.Hits), float64(c.Predicted), float64(c.Gold))
	}
	r.Micro, r.Macro, r.Weighted = averages(sums)
	return r
}

// Classification is the report of one label for each example, and the accuracy; scikit-learn's
// precision_recall_fscore_support and accuracy_score. Whatever strings occur are classes.
func Classification(gold, predicted []string) (r Report, accuracy float64, err error) {
	if err := sameLength(len(gold), len(predicted)); err != nil {
		return r, 0, err
	}
	counts := map[string]Counts{}
	hits := 0
	for i, g := range gold {
		p := predicted[i]
		c := counts[g]
		c.Gold++
		counts[g] = c
		c = counts[p]
		c.Predicted++
		if p == g {
			c.Hits++
			hits++
		}
		counts[p] = c
	}
	return newReport(counts), float64(hits) / float64(len(gold)), nil
}

func sameLength(gold, predicted int) error {
	if gold != predicted {
		return fmt.Errorf("%d gold examples, %d predictions", gold, predicted)
	}
	if gold == 0 {
		return fmt.Errorf("no examples")
	}
	return nil
}

// MultiLabel is the report of a set of labels for each example; repetitions within one do not count. Besides the
// averages over labels there are the means over examples (scikit-learn's average="samples": 0 where both sets are
// empty) and the share of sets that are wholly right.
func MultiLabel(gold, predicted [][]string) (r Report, samples PRF, subset float64, err error) {
	if err := sameLength(len(gold), len(predicted)); err != nil {
		return r, samples, 0, err
	}
	counts := map[string]Counts{}
	for i := range gold {
		g, p := set(gold[i]), set(predicted[i])
		c := setCounts(g, p, counts)
		samples.scaled(c.PRF(), 1)
		if c.Hits == len(g) && c.Hits == len(p) {
			subset++
		}
	}
	n := float64(len(gold))
	return newReport(counts), samples.over(n), subset / n, nil
}

// set is the sorted distinct strings.
func set(labels []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(labels)))
}

// setCounts compares two sorted sets and adds to the counts of their labels.
func setCounts(gold, predicted []string, counts map[string]Counts) Counts {
	all := Counts{Predicted: len(predicted), Gold: len(gold)}
	for _, label := range predicted {
		c := counts[label]
		c.Predicted++
		if _, ok := slices.BinarySearch(gold, label); ok {
			c.Hits++
			all.Hits++
		}
		counts[label] = c
	}
	for _, label := range gold {
		c := counts[label]
		c.Gold++
		counts[label] = c
	}
	return all
}
