package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/device/devicetest"
	"github.com/biolora/biolora/internal/cli"
)

// Why a card is not used, or is slower than it could be, is told once, however many models are opened.
func TestCardNotes(t *testing.T) {
	card := devicetest.Use(t)
	dir, task := setUp(t, 1)
	run := func(device string) (code int, stderr string) {
		code, _, stderr = execute("run", "--model", dir, "--task", task, "--limit", "1", "--max-new-tokens", "2", "--resamples", "10",
			"--device", device, "--out", filepath.Join(t.TempDir(), "out"))
		return code, stderr
	}
	if code, stderr := run("cuda"); code != cli.Done || strings.Count(stderr, "products by own kernels, which are slower than cublasLt") != 1 {
		t.Errorf("%d, %s", code, stderr)
	}
	card.SetCapability(7, 5)
	defer card.SetCapability(8, 0)
	if code, stderr := run("auto"); code != cli.Done || strings.Count(stderr, "no card is used: ") != 1 || !strings.Contains(stderr, "7.5") {
		t.Errorf("auto: %d, %s", code, stderr)
	}
	if code, stderr := run("cuda"); code != cli.Failed || !strings.Contains(stderr, "7.5, 8.0 or later is needed") {
		t.Errorf("cuda: %d, %s", code, stderr)
	}
}
