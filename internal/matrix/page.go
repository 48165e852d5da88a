package matrix

import (
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"reflect"
	"unicode/utf8"

	"github.com/biolora/biolora/internal/eval"
	"github.com/biolora/biolora/internal/eval/published"
	"github.com/biolora/biolora/internal/webpage"
)

//go:embed matrix.html.tmpl
var pageText string

var pageTemplate = webpage.Parse(pageText, template.FuncMap{
	"beside": func() string { return Beside },
	"value": func(metric string, x any) string { // an eval.Number or a float64
		return eval.UnitOf(metric).Text(eval.Number(reflect.ValueOf(x).Float()))
	},
	"gain":   func(g Gain) string { return g.unit.Signed(g.Gain) },
	"signed": signed,
	"tagged": published.Tagged,
})

// page is matrix.html: one file that needs no other.
func (res *Results) page() ([]byte, error) {
	p := page{Results: res}
	for i := range res.Bases {
		p.Bases = append(p.Bases, res.view(&res.Bases[i]))
	}
	return webpage.Render(pageTemplate, p)
}

type page struct {
	*Results
	Bases []baseView
}

// baseView is a base with its heat map: a row for each subset, a column for each category and each task.
type baseView struct {
	BaseScore
	Width, Height int
	Heads         []label
	Rows          []label
	Squares       []square
	Most          string // the gain of the darkest colour
	Table         []tableRow
}

type label struct {
	X, Y int
	Text string
}

type square struct {
	X, Y, TextX, TextY int
	Fill, Ink          string
	Text, Title        string
}

type tableRow struct {
	Part  Part
	Gains []Gain
}

// Sizes of the heat map, in pixels.
const (
	cellWidth, cellHeight = 104, 34
	headHeight            = 46
	letterWidth           = 8 // of the labels' font, at most
	mapGap                = 14
	headLetters           = 14 // that have room over a column
	rowLetters            = 28 // that are left of a row
)

func (res *Results) view(b *BaseScore) baseView {
	v := baseView{BaseScore: *b}
	most, left, categories := 0.0, 40, 0
	for _, s := range res.Subsets {
		left = max(left, letterWidth*utf8.RuneCountInString(short(s.Name, rowLetters))+12)
		row := tableRow{Part: s}
		for _, c := range res.Columns {
			g := res.of(b.Name, s.Name, c)
			row.Gains = append(row.Gains, g)
			if x := math.Abs(g.share()); x > most {
				most = x
			}
		}
		v.Table = append(v.Table, row)
	}
	for _, c := range res.Columns {
		if c.Kind == "category" {
			categories++
		}
	}
	x := func(column int) int { // tasks stand apart from categories
		at := left + column*cellWidth
		if column >= categories {
			at += mapGap
		}
		return at
	}
	for k, c := range res.Columns {
		v.Heads = append(v.Heads, label{x(k) + cellWidth/2, headHeight - 24, short(c.Name, headLetters)}, label{x(k) + cellWidth/2, headHeight - 8, short(c.Metric, headLetters)})
	}
	for i, row := range v.Table {
		top := headHeight + i*cellHeight
		v.Rows = append(v.Rows, label{left - 8, top + cellHeight/2 + 5, short(row.Part.Name, rowLetters)})
		for k, g := range row.Gains {
			fill, ink := colour(g.share(), most)
			v.Squares = append(v.Squares, square{x(k), top, x(k) + cellWidth/2, top + cellHeight/2 + 5, fill, ink, g.unit.Signed(g.Gain),
				fmt.Sprintf("%s on %s: %s before, %s after, %s relative, %d seed(s)", row.Part.Name, g.Column, g.unit.Text(g.Before), g.Value(), signed(g.Relative, " %"), g.N)})
		}
	}
	v.Width, v.Height = x(len(res.Columns)), headHeight+len(v.Table)*cellHeight
	v.Most = fmt.Sprintf("%.1f points", 100*most)
	if res.marks() {
		v.Most += fmt.Sprintf(", or %.2f marks", eval.UnitOf(eval.MarkMetric).Span()*most)
	}
	return v
}

// share is a gain as a share of what the metric can change by, so that colours of marks and of shares can be compared.
func (g Gain) share() float64 { return float64(g.Gain) / g.unit.Span() }

// short is a label of so many letters at most.
func short(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// colour goes from white to blue for gains, to orange for losses, the darkest at most; grey where there is no figure. Ink
// is black or white, whichever is easier to read on it.
func colour(gain, most float64) (fill, ink string) {
	if math.IsNaN(gain) {
		return "#dddddd", "#000000"
	}
	share := 0.0
	if most > 0 {
		share = math.Abs(gain) / most
	}
	end := [3]float64{0x1f, 0x5f, 0xa8}
	if gain < 0 {
		end = [3]float64{0xb8, 0x4a, 0x08}
	}
	var rgb [3]float64
	for i, e := range end {
		rgb[i] = math.Round(255 + share*(e-255))
	}
	fill = fmt.Sprintf("#%02x%02x%02x", int(rgb[0]), int(rgb[1]), int(rgb[2]))
	if contrast(rgb, white) > contrast(rgb, black) {
		return fill, "#ffffff"
	}
	return fill, "#000000"
}

var white, black = [3]float64{255, 255, 255}, [3]float64{}

// contrast is the ratio of two colours' relative luminances, as WCAG 2 defines it: from 1 to 21.
func contrast(a, b [3]float64) float64 {
	luminance := func(c [3]float64) (sum float64) {
		for i, weight := range [3]float64{0.2126, 0.7152, 0.0722} {
			x := c[i] / 255
			if x <= 0.04045 {
				x /= 12.92
			} else {
				x = math.Pow((x+0.055)/1.055, 2.4)
			}
			sum += weight * x
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}
