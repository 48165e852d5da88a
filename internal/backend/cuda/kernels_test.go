package cuda

import "testing"

// TestModules: a run compiles what it needs, and every kernel is found.
func TestModules(t *testing.T) {
	be := emulated(t, "bf16")
	if n := len(be.modules); n != 1 {
		t.Errorf("%d modules are loaded when a card is opened, want 1", n)
	}
	defer be.enter()()
	files := map[string]bool{}
	for k := range kernelNames {
		files[be.files[k]] = true
		if _, err := be.function(kernel(k)); err != nil {
			t.Error(err)
		}
	}
	if len(be.modules) != len(files) {
		t.Errorf("%d modules of %d files", len(be.modules), len(files))
	}
}
