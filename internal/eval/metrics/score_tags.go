package metrics

import (
	"maps"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/eval/rouge"
)

// sentence is the gold side of an example of tagged tokens.
type sentence struct{ tokens, tags []string }

// tags scores tagged tokens.
func (r *run) tags() {
	sentences, known := r.sentences()
	kinds := map[string]bool{}
	for tag := range known {
		if prefix, kind, err := Strict.split(tag); err == nil && prefix != 'O' {
			kinds[kind] = true
		}
	}
	if len(r.problems) > 0 {
		return
	}
	isKnown := func(tag string) bool { return known[tag] }
	names := slices.Sorted(maps.Keys(kinds))
	aligned, strict := r.entities("", Default, names), r.entities("strict_", Strict, names)
	repository, repositoryStrict := r.entities("repository_", Default, names), r.entities("repository_strict_", Strict, names)
	right, rightAt := r.column()
	tokens, tokensAt := r.column()
	r.metric("token_accuracy", func(sums []float64) float64 {
		if sums[tokensAt] == 0 {
			return 0
		}
		return sums[rightAt] / sums[tokensAt]
	})
	for i, gold := range sentences {
		s := &r.scores[i]
		lines, _ := ParseTags(r.examples[i].Prediction)
		got, read := AlignTags(gold.tokens, lines, isKnown)
		repoGold, repo := RepositoryTags(r.examples[i].Gold, r.examples[i].Prediction, isKnown)
		s.Gold, s.Valid = strings.Join(gold.tags, " "), read > 0
		if s.Valid {
			s.Prediction = strings.Join(got, " ")
		}
		c := aligned.count(i, gold.tags, got)
		s.Score = truth(s.Valid)
		if c.Gold+c.Predicted > 0 {
			s.Score = c.PRF().F1
		}
		strict.count(i, gold.tags, got)
		repository.count(i, repoGold, repo)
		repositoryStrict.count(i, repoGold, repo)
		tokens[i] = float64(len(gold.tags))
		for j, tag := range gold.tags {
			if got[j] == tag {
				right[i]++
			}
		}
	}
	r.countClasses(names, aligned.columns)
}

// sentences reads the gold answers, and returns the tags that answers may have.
func (r *run) sentences() ([]sentence, map[string]bool) {
	out, known := make([]sentence, len(r.examples)), map[string]bool{"O": true}
	for i, e := range r.examples {
		lines, unread := ParseTags(e.Gold)
		if len(lines) == 0 || unread > 0 {
			r.wrong(i, "the gold answer has %d lines \"token : tag\" and %d others", len(lines), unread)
			continue
		}
		for j, l := range lines {
			_, kind, err := Strict.split(l.Tag)
			if err != nil {
				r.wrong(i, "the gold answer, line %d: %w", j+1, err)
				continue
			}
			if _, loose, _ := Default.split(l.Tag); loose != kind {
				r.wrong(i, "the gold answer, line %d: seqeval reads the type of %q as %q in one mode and %q in the other",
					j+1, l.Tag, loose, kind)
			}
			out[i].tokens = append(out[i].tokens, l.Token)
			out[i].tags = append(out[i].tags, l.Tag)
			if l.Tag[0] != 'O' { // a model may begin or go on with any type that occurs
				known["B"+l.Tag[1:]], known["I"+l.Tag[1:]] = true, true
			}
		}
	}
	return out, known
}

// entityColumns are the counts of entities by type, read in one mode.
type entityColumns struct {
	mode      Mode
	names     []string
	columns   [][]float64 // [3*names]
	gold, got []Span
	counts    map[string]Counts
}

// entities adds the metrics of entities that are read in a mode; their names begin with prefix.
func (r *run) entities(prefix string, mode Mode, names []string) *entityColumns {
	columns, at := r.counted(len(names))
	end := at + len(columns)
	micro := func(name string, pick func(PRF) float64) {
		r.metric(prefix+name, func(sums []float64) float64 {
			m, _, _ := averages(sums[at:end])
			return pick(m)
		})
	}
	micro("f1", func(s PRF) float64 { return s.F1 })
	micro("precision", func(s PRF) float64 { return s.Precision })
	micro("recall", func(s PRF) float64 { return s.Recall })
	if mode == Default {
		r.metric(prefix+"macro_f1", func(sums []float64) float64 {
			_, m, _ := averages(sums[at:end])
			return m.F1
		})
	}
	return &entityColumns{mode: mode, names: names, columns: columns, counts: map[string]Counts{}}
}

// count fills the row of example i, and returns its counts of all types. Its tags are known to be well-formed.
func (e *entityColumns) count(i int, gold, got []string) (all Counts) {
	e.gold, _ = e.mode.Spans(e.gold[:0], gold)
	e.got, _ = e.mode.Spans(e.got[:0], got)
	clear(e.counts)
	countSpans(e.counts, e.gold, e.got)
	for k, name := range e.names {
		c := e.counts[name]
		e.columns[3*k][i], e.columns[3*k+1][i], e.columns[3*k+2][i] = float64(c.Hits), float64(c.Predicted), float64(c.Gold)
		all = Counts{all.Hits + c.Hits, all.Predicted + c.Predicted, all.Gold + c.Gold}
	}
	return all
}

// text scores free text.
func (r *run) text() {
	scorer := rouge.New(r.spec.Stem)
	longest, one, two := r.mean("rougeL"), r.mean("rouge1"), r.mean("rouge2")
	summary, exact := r.mean("rougeLsum"), r.share("exact_match")
	for i, e := range r.examples {
		if strings.TrimSpace(e.Gold) == "" {
			r.wrong(i, "the gold answer is empty")
			continue
		}
		s, t := &r.scores[i], scorer.Score(e.Gold, e.Prediction)
		s.Gold, s.Prediction, s.Score = e.Gold, e.Prediction, t.RougeL.F
		s.Valid = strings.TrimSpace(e.Prediction) != ""
		longest[i], one[i], two[i], summary[i] = t.RougeL.F, t.Rouge1.F, t.Rouge2.F, t.RougeLsum.F
		exact[i] = truth(fold(e.Gold) == fold(e.Prediction))
	}
}
