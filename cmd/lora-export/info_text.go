package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/visible"
)

// page writes lines of a key and what there is to say about it.
type page struct{ w io.Writer }

func (p page) line(key, format string, a ...any) {
	text := strings.ReplaceAll(visible.Text(fmt.Sprintf(format, a...)), "\n", `\n`)
	fmt.Fprintf(p.w, "%-13s %s\n", key, text)
}

// maxGroups is the number of groups of tensors, and of metadata, that are shown unless all tensors are asked for.
const maxGroups = 64

// maxReasons is the number of reasons that are shown.
const maxReasons = 20

// print writes the description for a person.
func (d *description) print(w io.Writer) {
	p := page{w}
	form := ""
	if d.Format != "" {
		form = ", " + d.Format
	}
	p.line(d.Kind, "%s%s", d.Path, form)
	d.printModel(p)
	d.printAdapter(p)
	d.printTokenizer(p)
	d.printSizes(p)
	for _, text := range d.Warnings {
		p.line("note", "%s", text)
	}
	switch d.Kind {
	case kindCheckpoint, kindAdapter:
		verdict := "yes"
		if !d.Usable {
			verdict = "no"
		}
		p.line("supported", "%s", verdict)
	}
	for i, text := range d.Unsupported {
		if i == maxReasons {
			p.line("", "... and %d more", len(d.Unsupported)-i)
			break
		}
		p.line("", "%s", text)
	}
	d.printMetadata(p)
	d.printTensors(p)
}

func (d *description) printModel(p page) {
	m := d.Model
	if m == nil {
		return
	}
	name := m.ModelType
	if m.Architecture != "" {
		name = fmt.Sprintf("%s (%s)", m.Architecture, m.ModelType)
	}
	p.line("architecture", "%s", name)
	if m.Parameters > 0 {
		p.line("parameters", "%s", visible.Count(m.Parameters))
	}
	if m.Layers > 0 {
		p.line("layers", "%d, hidden %d, intermediate %d", m.Layers, m.Hidden, m.Intermediate)
	}
	if m.Heads > 0 {
		text := fmt.Sprintf("%d heads", m.Heads)
		if m.KVHeads > 0 && m.KVHeads != m.Heads {
			text += fmt.Sprintf(" on %d key-value heads", m.KVHeads)
		}
		if m.HeadDim > 0 {
			text += fmt.Sprintf(" of %d", m.HeadDim)
		}
		if m.SlidingWindow > 0 {
			text += fmt.Sprintf(", window %d", m.SlidingWindow)
		}
		p.line("attention", "%s%s", text, flags(map[string]bool{", with biases": m.AttentionBias, ", biases in the MLP": m.MLPBias}))
	}
	if m.Context > 0 {
		p.line("context", "%d%s", m.Context, m.Rope.text())
	}
	if m.Vocabulary > 0 {
		p.line("vocabulary", "%d%s", m.Vocabulary, flags(map[string]bool{", embeddings tied": m.Tied}))
	}
	if m.Quantization != "" {
		p.line("quantised", "%s", m.Quantization)
	}
}

func flags(list map[string]bool) (text string) {
	for _, what := range slices.Sorted(maps.Keys(list)) {
		if list[what] {
			text += what
		}
	}
	return text
}

func (r *rope) text() string {
	if r == nil {
		return ""
	}
	text := fmt.Sprintf(", rope theta %v", r.Theta)
	if r.Type != "default" {
		text += fmt.Sprintf(", %s by %v", r.Type, r.Factor)
	}
	if r.Original > 0 {
		text += fmt.Sprintf(" from %d", r.Original)
	}
	if r.High > 0 {
		text += fmt.Sprintf(" (low %v, high %v)", r.Low, r.High)
	}
	return text
}

func (d *description) printAdapter(p page) {
	a := d.Adapter
	if a == nil {
		return
	}
	scale := fmt.Sprintf("rank %d, alpha %v, dropout %v", a.R, a.Alpha, a.Dropout)
	p.line("LoRA", "%s%s", scale, flags(map[string]bool{", rsLoRA": a.RSLoRA}))
	p.line("targets", "%s", a.Targets)
	if a.Exclude != "" {
		p.line("", "not %s", a.Exclude)
	}
	if len(a.Layers) > 0 {
		p.line("", "in layers %s", ranges(slices.Clone(a.Layers)))
	}
	for what, rules := range map[string]map[string]float64{"rank": a.RankPattern, "alpha": a.AlphaPattern} {
		for _, key := range slices.Sorted(maps.Keys(rules)) {
			p.line("", "%s %v for %s", what, rules[key], key)
		}
	}
	if a.Base != "" {
		p.line("base", "%s", a.Base)
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(a.Modules)) {
		parts = append(parts, fmt.Sprintf("%d %s", a.Modules[name], name))
	}
	for _, name := range a.Whole {
		parts = append(parts, name+" whole")
	}
	if len(parts) > maxGroups {
		parts = append(parts[:maxGroups], "...")
	}
	if len(parts) > 0 {
		pairs := ", each with both matrices"
		if !a.Complete {
			pairs = fmt.Sprintf(", %d of them without one of the matrices", len(a.Incomplete))
		}
		p.line("modules", "%s%s", strings.Join(parts, ", "), pairs)
	}
	p.line("parameters", "%s trained", visible.Count(a.Parameters))
}

func (d *description) printTokenizer(p page) {
	t := d.Tokenizer
	if t == nil {
		return
	}
	name := func(id *int32, role string) string {
		if id == nil {
			return "none"
		}
		return strings.TrimSpace(fmt.Sprintf("%s (%d)", t.Special[role], *id))
	}
	templates := "no chat template"
	if len(t.ChatTemplates) > 0 {
		templates = "chat template " + strings.Join(t.ChatTemplates, ", ")
	}
	p.line("tokenizer", "%s, %d tokens, BOS %s, EOS %s, %s", t.Format, t.Size, name(t.BOS, "bos_token"), name(t.EOS, "eos_token"), templates)
	for _, role := range slices.Sorted(maps.Keys(t.Special)) {
		if role != "bos_token" && role != "eos_token" {
			p.line("", "%s %s", role, t.Special[role])
		}
	}
}

func (d *description) printSizes(p page) {
	if len(d.Files) > 0 {
		files := "1 file"
		if n := len(d.Files); n > 1 {
			files = strconv.Itoa(n) + " files"
		}
		p.line("on disk", "%s in %s", size(d.Bytes), files)
	}
	ts := d.Tensors
	if ts == nil {
		return
	}
	if d.Kind == kindCheckpoint && d.Usable {
		switch {
		case ts.ConvertedF32 == 0:
			p.line("in memory", "%s, as it lies on the disk", size(ts.Bytes))
		case ts.ConvertedF32 == ts.ConvertedBF16:
			p.line("in memory", "%s, %s of it converted once", size(ts.InPlace+ts.ConvertedF32), size(ts.ConvertedF32))
		default:
			p.line("in memory", "%s for arithmetic in float32, %s in bfloat16; all but %s of it converted once",
				size(ts.InPlace+ts.ConvertedF32), size(ts.InPlace+ts.ConvertedBF16), size(ts.InPlace))
		}
	}
	var parts []string
	for _, name := range ts.formatNames() {
		f := ts.Formats[name]
		parts = append(parts, fmt.Sprintf("%d %s (%s values, %s)", f.Count, name, visible.Count(f.Elements), size(f.Bytes)))
	}
	if len(parts) > maxGroups {
		parts = append(parts[:maxGroups], "...")
	}
	p.line("tensors", "%s", strings.Join(parts, ", "))
}

func (d *description) printMetadata(p page) {
	shown := 0
	for _, key := range slices.Sorted(maps.Keys(d.Metadata)) {
		if shown++; shown > maxGroups {
			p.line("", "... and %d more keys", len(d.Metadata)-maxGroups)
			return
		}
		if shown == 1 {
			fmt.Fprintln(p.w)
		}
		p.line("metadata", "%s = %s", key, d.Metadata[key])
	}
}

func (d *description) printTensors(p page) {
	if d.Tensors == nil || d.Tensors.Count == 0 {
		return
	}
	fmt.Fprintln(p.w)
	line := func(name, format string, shape []int) {
		fmt.Fprintf(p.w, "  %-58s %-6s %s\n", strings.ReplaceAll(visible.Text(name), "\n", `\n`), visible.Text(format), dims(shape))
	}
	if d.Tensors.List != nil {
		for _, t := range d.Tensors.List {
			line(t.Name, t.Format, t.Shape)
		}
		return
	}
	for i, g := range d.Tensors.Groups {
		if i == maxGroups {
			fmt.Fprintf(p.w, "  ... and %d more; --tensors lists all\n", len(d.Tensors.Groups)-i+d.Tensors.GroupsLeftOut)
			return
		}
		line(g.Name, g.Format, g.Shape)
	}
}

func dims(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	var parts []string
	for _, n := range shape {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, " x ")
}
