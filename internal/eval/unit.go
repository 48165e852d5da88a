package eval

import (
	"fmt"
	"math"

	"github.com/biolora/biolora/internal/judge"
)

// Unit is how the values of a metric are shown.
type Unit struct {
	factor    float64
	digits    int
	low, high float64 // of a chart's axis
	step      float64 // between its ticks
	name      string
}

// UnitOf is the unit of a metric between 0 and 1, per cent, or of a judge's marks.
func UnitOf(metric string) Unit {
	if metric == MarkMetric {
		return Unit{1, 2, 1, judge.Best, 1, fmt.Sprintf("mean mark from 1 to %d", judge.Best)}
	}
	return Unit{100, 1, 0, 1, 0.2, "in per cent"}
}

// Text is a value as a person reads it, with digits behind the point; a dash where there is none.
func (u Unit) Text(n Number) string {
	return decimals(Number(u.factor)*n, fmt.Sprintf("%%.%df", u.digits))
}

// Signed is a difference of values, with its sign.
func (u Unit) Signed(n Number) string {
	return decimals(Number(u.factor)*n, fmt.Sprintf("%%+.%df", u.digits))
}

// decimals writes a number, or a dash where it is none.
func decimals(n Number, format string) string {
	if math.IsNaN(float64(n)) {
		return "-"
	}
	return fmt.Sprintf(format, n)
}

// Span is how far apart the least and the largest value are.
func (u Unit) Span() float64 { return u.high - u.low }

// at is where a value is in the plot of a chart.
func (u Unit) at(n Number) int {
	share := (float64(n) - u.low) / u.Span()
	return chartLeft + int(math.Round(chartPlot*math.Min(1, math.Max(0, share))))
}
