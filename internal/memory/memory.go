// Package memory says how much memory the system could give, how much this process has, and how sizes are written.
package memory

import (
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
)

// Held is what the process has taken for Go's heap and its keeping, in bytes, garbage apart: it collects that first.
func Held() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc + s.StackSys + s.MSpanSys + s.MCacheSys + s.BuckHashSys + s.GCSys + s.OtherSys)
}

var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// Parse reads a size: a number and B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024).
func Parse(text string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(strings.TrimSpace(text), u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if v *= u.size; err != nil || !(v >= 1 && v < math.MaxInt64) {
			break
		}
		return int64(v), nil
	}
	return 0, fmt.Errorf("%q is no size: want a number and a unit, such as 12GiB or 800MB", text)
}

// Format writes a size in bytes, KiB, MiB or GiB, with about three digits.
func Format(bytes int64) string {
	if -1000 < bytes && bytes < 1000 {
		return fmt.Sprintf("%d bytes", bytes)
	}
	v, unit := float64(bytes), ""
	for _, unit = range []string{"KiB", "MiB", "GiB"} {
		if v /= 1024; math.Abs(v) < 1000 {
			break
		}
	}
	digits := 0
	if math.Abs(v) < 9.995 {
		digits = 2
	} else if math.Abs(v) < 99.95 {
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, unit)
}
