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
