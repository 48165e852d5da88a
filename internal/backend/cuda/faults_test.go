package cuda

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// fault is a mistake in a kernel that a test must find: in file, from is replaced by to (it occurs once), and test, as
// go test -run takes it, must fail then. kernel is the kernel's name, or that of a family: NAME of all NAME_....
type fault struct{ file, kernel, from, to, test string }

// faults are those of all files; each file of tests that has some adds them in its init.
var faults []fault

func init() { faults = append(append(faults, normFaults...), elementwiseFaults...) }

var elementwiseFaults = []fault{
	{"elementwise.cu", "round_bf16", "pack_bf16(q.z, q.w)", "pack_bf16(q.w, q.z)", "TestParam"},
	{"elementwise.cu", "round_bf16", "if (i >= a.n) return;", "if (i + 8 >= a.n) return;", "TestParam"},
}

// driverVariable names the emulated driver that a test is to use, in a process that this one starts.
const driverVariable = "BIOLORA_TEST_EMULATED_DRIVER"

// TestFaults: for each kernel there is a test that fails when the kernel is wrong.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: every fault is a driver of its own to compile and a test to run on it")
	}
	if os.Getenv(driverVariable) != "" || onCard() {
		t.Skip("this is such a run, or one on a card")
	}
	emulated(t, "f32")
	everyKernelHasOne(t)
	for i, f := range faults {
		t.Run(fmt.Sprintf("%s/%s/%d", f.file, f.kernel, i), func(t *testing.T) {
			t.Parallel()
			if err := f.found(); err != nil {
				t.Errorf("%q for %q: %v", f.to, f.from, err)
			}
		})
	}
}

func everyKernelHasOne(t *testing.T) {
	for _, name := range kernelNames {
		has := func(f fault) bool { return name == f.kernel || strings.HasPrefix(name, f.kernel+"_") }
		if !slices.ContainsFunc(faults, has) {
			t.Errorf("no fault is planted in kernel %s", name)
		}
	}
}

// found makes the fault and returns an error if the test passes all the same.
func (f *fault) found() error {
	source, err := os.ReadFile(f.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), f.from); n != 1 {
		return errors.New("it is there " + strings.Repeat("more than ", min(n, 1)) + "0 times")
	}
	driver, err := emu.Variant(filepath.Base(f.file), strings.Replace(string(source), f.from, f.to, 1))
	if err != nil {
		return err
	}
	defer os.Remove(driver)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // threads may wait for ever
	defer cancel()
	c := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+strings.ReplaceAll(f.test, "/", "$/^")+"$", "-test.failfast", "-test.v")
	c.Env = append(os.Environ(), driverVariable+"="+driver)
	out, err := c.CombinedOutput()
	switch {
	case strings.Contains(string(out), "no tests to run"):
		return errors.New("there is no test " + f.test)
	case err == nil:
		return errors.New(f.test + " passes")
	case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic: ") && !strings.Contains(string(out), "SIG"):
		return fmt.Errorf("%s did not fail but ended with %w:\n%s", f.test, err, out)
	}
	return nil
}
