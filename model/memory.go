package model

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"github.com/biolora/biolora/model/op"
)

// keepActivations decides whether the layers keep what their backward pass reads, for batches of the given rows.
func (m *Model) keepActivations(rows int) (bool, error) {
	switch m.opts.Activations {
	case "all":
		return true, nil
	case "none":
		return false, nil
	}
	free, known := availableMemory()
	if !known {
		free = 2 << 30
	}
	return m.activationBytes(rows) <= free/2, nil
}

// activationBytes is about what all layers keep, their inputs apart, in float32.
func (m *Model) activationBytes(rows int) (n int64) {
	at := &m.dims.Attention
	for _, l := range m.layers {
		c := op.ClassOf(l)
		cols := at.QKVCols() + at.OutCols() + m.dims.Hidden + 2*m.dims.Intermediate
		if c.QKV {
			cols += m.dims.Hidden
		}
		if c.GateUp {
			cols += m.dims.Hidden
		}
		if c.Down {
			cols += m.dims.Intermediate
		}
		n += int64(rows) * int64(cols) * 4
	}
	return n
}

// availableMemory is what the system says it could give to a new program, where it says so.
func availableMemory() (bytes int64, known bool) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, rest, _ := strings.Cut(s.Text(), ":")
		if name != "MemAvailable" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		return kib << 10, err == nil
	}
	return 0, false
}
