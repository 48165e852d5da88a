package train

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/train/instruct"
)

// examplesOf makes examples of ids and labels.
func examplesOf(t testing.TB, ids, labels [][]int32) []instruct.Example {
	t.Helper()
	var text bytes.Buffer
	for i := range ids {
		if err := json.NewEncoder(&text).Encode(map[string][]int32{"input_ids": ids[i], "labels": labels[i]}); err != nil {
			t.Fatal(err)
		}
	}
	d, err := instruct.Read("rows", &text, instruct.Alpaca)
	if err != nil {
		t.Fatal(err)
	}
	x, err := d.Tokenize(t.Context(), nil, instruct.TokenizeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return x.List
}

// family makes rows that begin alike at several depths; some are whole beginnings of others, some the same.
func family(r *rand.Rand, n int) (ids, labels [][]int32) {
	for i := range n {
		var row []int32
		if i > 0 && r.IntN(4) > 0 {
			other := ids[r.IntN(i)]
			row = slices.Clone(other[:r.IntN(len(other)+1)])
		}
		for range 1 + r.IntN(20) {
			row = append(row, r.Int32N(5))
		}
		if i > 0 && r.IntN(8) == 0 {
			row = slices.Clone(ids[r.IntN(i)])
		}
		label := make([]int32, len(row))
		for t := range label {
			label[t] = []int32{instruct.Masked, row[t], r.Int32N(5)}[r.IntN(3)]
		}
		label[len(label)-1] = 1
		ids, labels = append(ids, row), append(labels, label)
	}
	return ids, labels
}

// What a token sees, where it stands and what it is to predict is the same whether rows share or not.
func TestSharedTree(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		ids, labels := family(r, 1+r.IntN(12))
		list := examplesOf(t, ids, labels)
		rows := r.Perm(len(list))
		f := filler{list: list, share: true}
		b, tokens, count := f.fill(rows)
		plain := filler{list: list}
		whole, wantTokens, wantLabels := plain.fill(rows)
		if tokens != wantTokens || count != wantLabels || len(b.Tokens) > len(whole.Tokens) {
			t.Fatalf("seed %d: %d tokens and %d labels in %d rows, want %d and %d in at most %d", seed, tokens, count, len(b.Tokens), wantTokens, wantLabels, len(whole.Tokens))
		}
		checkTree(t, &f, rows)
		if t.Failed() {
			t.Fatalf("seed %d: %v", seed, b.Segments)
		}
	}
}

func checkTree(t *testing.T, f *filler, rows []int) {
	t.Helper()
	b := &f.batch
	segment := make([]int, len(b.Tokens))
	for i, s := range b.Segments {
		for r := s.Start; r < s.Start+s.Len; r++ {
			segment[r] = i
		}
	}
	users := make([]int, len(b.Tokens))
	want := map[model.Target]int{}
	for i, r := range rows {
		e, place := &f.list[r], f.sharer.place[f.sharer.first[i]:]
		var path []int32 // from the last token back, along the segments
		for at := place[len(e.IDs)-1]; ; {
			s := b.Segments[segment[at]]
			for ; at >= s.Start; at-- {
				path = append(path, at)
			}
			if s.Prefix < 0 {
				break
			}
			p := b.Segments[s.Prefix]
			at = p.Start + p.Len - 1
		}
		slices.Reverse(path)
		if !slices.Equal(path, place[:len(e.IDs)]) {
			t.Errorf("row %d sees %v, its tokens lie at %v", r, path, place[:len(e.IDs)])
		}
		for at, p := range path {
			users[p]++
			if b.Tokens[p] != e.IDs[at] || b.Positions[p] != int32(at) {
				t.Errorf("row %d, token %d: token %d at position %d", r, at, b.Tokens[p], b.Positions[p])
			}
			if at > 0 && e.Label(at) != instruct.Masked {
				want[model.Target{Row: path[at-1], Label: e.Label(at)}]++
			}
		}
	}
	for _, s := range b.Segments {
		if users[s.Start] > 1 && s.Len < leastShared {
			t.Errorf("%d rows share %d tokens", users[s.Start], s.Len)
		}
	}
	for _, x := range b.Targets {
		key := model.Target{Row: x.Row, Label: x.Label}
		if want[key] != int(x.Count) {
			t.Errorf("target %v counts for %d, want %d", key, x.Count, want[key])
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("targets are missing: %v", want)
	}
}

// A shared token has the mask of the first row that has it.
func TestSharedDropout(t *testing.T) {
	head := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	ids := [][]int32{append(slices.Clone(head), 10, 11), {5, 5}, append(slices.Clone(head), 12)}
	list := examplesOf(t, ids, ids)
	f := filler{list: list, share: true}
	rows := []int{2, 1, 0}
	f.fill(rows)
	f.withDropout(rows, 7, 3)
	want := []uint32{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 1, 1}
	if d := f.batch.Dropout; !slices.Equal(d.Samples, want) || d.Seed != 7 || d.Epoch != 3 {
		t.Errorf("samples %v, want %v; seed %d, epoch %d", d.Samples, want, d.Seed, d.Epoch)
	}
	if got := f.batch.Tokens; !slices.Equal(got, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11, 5, 5}) {
		t.Errorf("tokens %v", got)
	}
}

// When rows share: what the run says, counts and lays out.
func TestWhenRowsShare(t *testing.T) {
	head := []int32{1, 2, 3, 4, 5, 6, 7, 8}
	row := func(more ...int32) []int32 { return append(slices.Clone(head), more...) }
	ids := [][]int32{row(10, 11), row(12), row(13), row(14, 15, 16)}
	data := func() *instruct.Dataset {
		var text bytes.Buffer
		for _, x := range ids {
			fmt.Fprintf(&text, "{\"input_ids\": %s, \"labels\": %[1]s}\n", jsonOf(t, x))
		}
		d, err := instruct.Read("rows", &text, instruct.Alpaca)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for _, c := range []struct {
		sharing         string
		dropout, length bool
		shared          int64
		warning         string
	}{
		{sharing: shareAuto, shared: 16},
		{sharing: shareAlways, shared: 16},
		{sharing: shareNever},
		{sharing: shareAuto, dropout: true},
		{sharing: shareAlways, dropout: true, shared: 16, warning: "rows that begin with the same tokens share the dropout mask of these"},
		{sharing: shareAuto, length: true},
		{sharing: shareAlways, length: true, warning: "rows do not share what they begin with: with dynamic rope scaling a token's rotation depends on the length of its row"},
	} {
		f := newFake()
		f.lim.dropout, f.lim.lengthMatters = c.dropout, c.length
		o := plain()
		o.SharePrefixes = c.sharing
		_, rec := f.run(t, data(), o)
		if rec.plan.Rows.Shared != c.shared || rec.plan.Rows.Tokens != 39 {
			t.Errorf("%+v: %d of %d tokens are shared", c, rec.plan.Rows.Shared, rec.plan.Rows.Tokens)
		}
		if rows := 20 - int(c.shared)/2; f.reserved != rows || len(f.batches[1].Tokens) != rows {
			t.Errorf("%+v: %d rows are reserved, the second micro-batch has %d, want %d", c, f.reserved, len(f.batches[1].Tokens), rows)
		}
		if rec.steps[1].Tokens != 20 {
			t.Errorf("%+v: step 2 counts %d tokens, its rows have 20", c, rec.steps[1].Tokens)
		}
		if got := slices.Contains(rec.plan.Warnings, c.warning); got != (c.warning != "") {
			t.Errorf("%+v: warnings %q", c, rec.plan.Warnings)
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Grouping keeps every row once and the last micro-batch last, is seeded, and brings like rows together.
func TestGroupByPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var ids [][]int32
	for range 3001 {
		kind := r.Int32N(5)
		row := slices.Repeat([]int32{100 + kind}, 10+int(kind))
		for range 1 + r.IntN(30) {
			row = append(row, r.Int32N(50))
		}
		ids = append(ids, row)
	}
	list := examplesOf(t, ids, ids)
	all := make([]int, len(list))
	for i := range all {
		all[i] = i
	}
	o := plain()
	o.Shuffle, o.PerDeviceTrainBatchSize, o.GroupByPrefix = true, 8, true
	order := func(seed uint64, epoch int, group bool) []int {
		o.Seed, o.GroupByPrefix = seed, group
		return (&run{Options: o, rows: all, data: &instruct.Examples{List: list}}).order(epoch)
	}
	cost := func(order []int) (rows int) {
		f := filler{list: list, share: true}
		for part := range slices.Chunk(order, 8) {
			b, _, _ := f.fill(part)
			rows += len(b.Tokens)
		}
		return rows
	}
	got := order(1, 0, true)
	if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, all) {
		t.Fatal("a row is lost or comes twice")
	}
	if !slices.Equal(got, order(1, 0, true)) || slices.Equal(got, order(1, 1, true)) || slices.Equal(got, order(2, 0, true)) {
		t.Error("the order does not depend on seed and epoch alone")
	}
	if plain, grouped := cost(order(1, 0, false)), cost(got); float64(grouped) > 0.8*float64(plain) {
		t.Errorf("grouped micro-batches have %d rows, others %d", grouped, plain)
	}
	o.Shuffle = false
	if !slices.Equal(order(1, 0, true), order(1, 5, true)) {
		t.Error("without shuffling the epochs differ")
	}
}
