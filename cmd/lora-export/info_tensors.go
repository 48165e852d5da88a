package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/model/weights"
)

// tensors is what is known of many tensors.
type tensors struct {
	Count    int   `json:"count"`
	Elements int64 `json:"elements"`
	Bytes    int64 `json:"bytes"`
	// A model's tensors are used where they lie, or converted once: to so many bytes for arithmetic in float32, and in
	// bfloat16.
	InPlace       int64             `json:"in_place_bytes"`
	ConvertedF32  int64             `json:"converted_bytes"`
	ConvertedBF16 int64             `json:"converted_bytes_bf16"`
	Formats       map[string]format `json:"formats"`
	Groups        []group           `json:"groups"`
	GroupsLeftOut int               `json:"groups_left_out,omitempty"` // tensors that are in no group, where there are too many
	List          []tensor          `json:"list,omitempty"`

	all    bool // List is wanted
	byLook map[look]*members
	order  []*members
}

// look is what the tensors of a group share.
type look struct{ before, after, format, shape string }

// members is a group, and the numbers that its names differ in.
type members struct {
	group
	look
	numbers []int
}

// format adds up the tensors of one format.
type format struct {
	Count    int   `json:"count"`
	Elements int64 `json:"elements"`
	Bytes    int64 `json:"bytes"`
}

// group is tensors whose names differ in one number, and that are alike else.
type group struct {
	Name   string `json:"name"` // with {from-to} for the number where there is more than one
	Count  int    `json:"count"`
	Format string `json:"dtype"`
	Shape  []int  `json:"shape"`
}

type tensor struct {
	Name   string `json:"name"`
	Format string `json:"dtype"`
	Shape  []int  `json:"shape"`
	Bytes  int64  `json:"bytes"`
	File   string `json:"file,omitempty"`
}

// newTensors has none yet. With all it will list every one.
func newTensors(all bool) *tensors {
	return &tensors{all: all, Formats: map[string]format{}, byLook: map[look]*members{}}
}

// addCheckpoint adds a checkpoint's.
func (ts *tensors) addCheckpoint(ckpt *weights.Checkpoint) {
	for t := range ckpt.All() {
		ts.add(tensor{Name: t.Name, Format: t.Type, Shape: t.Shape, Bytes: t.Bytes(), File: filepath.Base(t.File)})
		if t.Data != nil && t.DType != numeric.F64 {
			ts.InPlace += t.Bytes()
		}
	}
	// What cannot be prepared at all is a reason that model.Describe gives.
	ts.ConvertedF32, _ = ckpt.Unprepared(weights.PrepareOptions{DType: numeric.F32})
	ts.ConvertedBF16, _ = ckpt.Unprepared(weights.PrepareOptions{DType: numeric.BF16})
	ts.finish()
}

// maxKept is the number of groups that are remembered, many times that of any model.
const maxKept = 10_000

// add adds one. Sizes come from files that were checked, so that the sums are numbers too.
func (ts *tensors) add(t tensor) {
	n := int64(product(t.Shape))
	if t.Shape == nil {
		t.Shape = []int{}
	}
	f := ts.Formats[t.Format]
	f.Count, f.Elements, f.Bytes = f.Count+1, f.Elements+n, f.Bytes+t.Bytes
	ts.Formats[t.Format] = f
	ts.Count, ts.Elements, ts.Bytes = ts.Count+1, ts.Elements+n, ts.Bytes+t.Bytes
	if ts.all {
		ts.List = append(ts.List, t)
	}
	before, number, after := cutNumber(t.Name)
	l := look{before, after, t.Format, fmt.Sprint(t.Shape)}
	g := ts.byLook[l]
	if g == nil {
		if len(ts.order) == maxKept {
			ts.GroupsLeftOut++
			return
		}
		g = &members{group: group{Name: t.Name, Format: t.Format, Shape: t.Shape}, look: l}
		ts.byLook[l] = g
		ts.order = append(ts.order, g)
	}
	g.Count++
	g.numbers = append(g.numbers, number)
}

// finish makes the groups.
func (ts *tensors) finish() {
	ts.Groups = make([]group, 0, len(ts.order))
	for _, g := range ts.order {
		if g.Count > 1 {
			g.Name = g.before + ranges(g.numbers) + g.after
		}
		ts.Groups = append(ts.Groups, g.group)
	}
}

// cutNumber takes the first number between dots out of a name. A name without one is before.
func cutNumber(name string) (before string, number int, after string) {
	at := 0
	for part := range strings.SplitSeq(name, ".") {
		if n, err := strconv.Atoi(part); err == nil && n >= 0 && strconv.Itoa(n) == part {
			return name[:at], n, name[at+len(part):]
		}
		at += len(part) + 1
	}
	return name, 0, ""
}

// ranges writes numbers as {0-3,7}.
func ranges(numbers []int) string {
	slices.Sort(numbers)
	numbers = slices.Compact(numbers)
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := strconv.Itoa(numbers[i])
		if j > i {
			part += "-" + strconv.Itoa(numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	const most = 8
	if len(parts) > most {
		parts = append(parts[:most], "...")
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// formatNames lists the formats, the one with most elements first.
func (ts *tensors) formatNames() []string {
	return slices.SortedFunc(maps.Keys(ts.Formats), func(a, b string) int {
		if x, y := ts.Formats[a].Elements, ts.Formats[b].Elements; x != y {
			return int(min(1, max(-1, y-x)))
		}
		return strings.Compare(a, b)
	})
}
