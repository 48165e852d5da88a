package benchmark

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// CPU is the name of the processor, its architecture where the system does not tell.
func CPU() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// Load is how many programs ran at a time over the last minute, on average. Only Linux tells.
func Load() (load float64, ok bool) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, false
	}
	_, err = fmt.Sscan(string(data), &load)
	return load, err == nil
}
