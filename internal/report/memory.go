package report

import (
	"fmt"

	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/model"
)

// Keeping says how many layers keep what their backward pass reads.
func Keeping(m *model.Memory) string {
	each := memory.Format(m.Each)
	switch m.Policy() {
	case "all":
		return fmt.Sprintf("policy all: all %d layers keep %s each", m.Layers, each)
	case "none":
		return fmt.Sprintf("policy none: %d layers compute again what they do not keep (%s each)", m.Layers, each)
	}
	return fmt.Sprintf("policy %s: %d of %d layers keep %s each", m.Policy(), m.Kept, m.Layers, each)
}

// Limited says what the limit of memory is, and whether the run stays within it.
func Limited(m *model.Memory) string {
	if m.Limit == 0 {
		return ""
	}
	from := m.From
	if m.Given {
		from = "--memory-limit"
	}
	text := fmt.Sprintf("of %s (%s)", memory.Format(m.Limit), from)
	if !m.Fits() {
		text += ": it does not fit"
	}
	return text
}

// Streaming says what of the weights stays in memory, and what a step reads from the disk.
func Streaming(s *model.Streaming) string {
	text := fmt.Sprintf("%d of %d layers stay in memory; about %s read a step", s.Stays, s.Layers, gigabytes(s.Read))
	if s.Batches > 1 {
		text += fmt.Sprintf("; %d micro-batches pass through a layer together", s.Batches)
	}
	return text
}

// streamed says what was read in the first step. The rate is the disk's only where nothing was in the system's cache.
func streamed(s model.StreamStats) string {
	text := fmt.Sprintf("%s of weights read so far", gigabytes(s.Read))
	if s.Reading > 0 {
		text += fmt.Sprintf(", %s a second while reading", gigabytes(int64(float64(s.Read)/s.Reading.Seconds())))
	}
	return text + fmt.Sprintf("; waited %.1f s for them", s.Waiting.Seconds())
}

func gigabytes(n int64) string { return fmt.Sprintf("%.2f GB", float64(n)/1e9) }
