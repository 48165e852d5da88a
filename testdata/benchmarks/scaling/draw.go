package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// curve is a sweep that was measured.
type curve struct {
	sweep
	points []point
}

// Sizes of a panel, in pixels, and of the space around it.
const (
	panelWidth, panelHeight = 220, 170
	left, top, gap, bottom  = 55, 46, 66, 58
)

// draw makes one panel for each curve: both axes are logarithmic, dots are measured, the dashed line is the law that the
// time should follow.
func draw(curves []curve, title string) []byte {
	var b bytes.Buffer
	width := left + len(curves)*(panelWidth+gap)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, top+panelHeight+bottom)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/><text x="%d" y="18" font-size="13">Time of a training step for each token; %s</text>`+"\n",
		left, html.EscapeString(title))
	for i, c := range curves {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", left+i*(panelWidth+gap), top)
		c.draw(&b)
		fmt.Fprintln(&b, "</g>")
	}
	fmt.Fprintln(&b, "</svg>")
	return b.Bytes()
}

// axis places values on a logarithmic scale.
type axis struct{ least, most, pixels float64 }

func (a axis) at(v float64) float64 {
	return a.pixels * math.Log(v/a.least) / math.Log(a.most/a.least)
}

func (c *curve) draw(b *bytes.Buffer) {
	first, last := float64(c.points[0].value), float64(c.points[len(c.points)-1].value)
	x := axis{first / 1.15, last * 1.15, panelWidth}
	y := c.times()
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="none" stroke="#999"/>`+"\n", panelWidth, panelHeight)
	fmt.Fprintf(b, `<text x="%d" y="-8" text-anchor="middle">us a token against %s</text>`+"\n", panelWidth/2, html.EscapeString(c.unit))
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle" fill="#777">dashed: %s</text>`+"\n", panelWidth/2, panelHeight+34, c.law)
	for _, p := range c.points {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle" font-size="9">%d</text>`+"\n", x.at(float64(p.value)), panelHeight+14, p.value)
	}
	for _, tick := range ticks(y) {
		at := panelHeight - y.at(tick)
		fmt.Fprintf(b, `<text x="-5" y="%.1f" text-anchor="end">%g</text><line x2="%d" y1="%.1f" y2="%.1f" stroke="#eee"/>`+"\n",
			at+4, tick, panelWidth, at, at)
	}
	fmt.Fprintf(b, `<polyline fill="none" stroke="#777" stroke-dasharray="4 3" points="%s"/>`+"\n", c.line(x, y, c.lawAt))
	fmt.Fprintf(b, `<polyline fill="none" stroke="#06c" points="%s"/>`+"\n", c.line(x, y, func(p point) float64 { return p.seconds * 1e6 }))
	for _, p := range c.points {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="#06c"/>`+"\n", x.at(float64(p.value)), panelHeight-y.at(p.seconds*1e6))
	}
}

// times is the axis of the times, measured and expected.
func (c *curve) times() axis {
	least, most := math.Inf(1), 0.0
	for _, p := range c.points {
		least = min(least, p.seconds*1e6, c.lawAt(p))
		most = max(most, p.seconds*1e6, c.lawAt(p))
	}
	return axis{least / 1.2, most * 1.2, panelHeight}
}

// lawAt is the time that the law gives at a point, in microseconds: it goes through the last point, where fixed costs
// weigh least.
func (c *curve) lawAt(p point) float64 {
	last := c.points[len(c.points)-1]
	return last.seconds * 1e6 * c.expected(float64(p.value)) / c.expected(float64(last.value))
}

func (c *curve) line(x, y axis, of func(point) float64) (points string) {
	for _, p := range c.points {
		points += fmt.Sprintf("%.1f,%.1f ", x.at(float64(p.value)), panelHeight-y.at(of(p)))
	}
	return points
}

// ticks are round numbers on an axis: 1, 2 and 5 times the powers of ten.
func ticks(a axis) (list []float64) {
	for power := math.Pow(10, math.Floor(math.Log10(a.least))); power <= a.most; power *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * power; v >= a.least && v <= a.most {
				list = append(list, v)
			}
		}
	}
	return list
}
