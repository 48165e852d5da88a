package cuda

import (
	"slices"
	"testing"

	"github.com/biolora/biolora/internal/backend/backendtest"
)

// someEntries has each operation, in few programs.
func someEntries() (es []backendtest.Entry) {
	names := []string{"linear/branches/5", "linear/train/5", "linear/nf4", "gateup", "recompute", "rmsnorm", "attention/tree/gqa",
		"embed/nf4", "embed/train", "gather", "loss/branch", "loss/train", "tied", "optimiser"}
	for _, e := range backendtest.Entries() {
		if slices.Contains(names, e.Name) {
			es = append(es, e)
		}
	}
	return es
}

// TestAllocations wants none of Go's memory, and none of the card's, once the buffers have grown. A batch without a serial
// is copied for each operation.
func TestAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which allocates")
	}
	d := emulatedDevice(t)
	for _, compute := range []string{"f32", "bf16"} {
		be := emulated(t, compute)
		for _, e := range someEntries() {
			run, _ := e.Program(backendtest.NewWorld(be, false))
			run()
			before := d.Calls("cuMemAlloc")
			n := testing.AllocsPerRun(1, run)
			for range ringPieces { // each piece of the ring of uploads makes its event when it is used first
				if n != 0 {
					n = testing.AllocsPerRun(1, run)
				}
			}
			if n != 0 {
				t.Errorf("%s: %s: %v allocations a run", compute, e.Name, n)
			}
			if n := d.Calls("cuMemAlloc") - before; n != 0 {
				t.Errorf("%s: %s: %d allocations on the card in runs after the first", compute, e.Name, n)
			}
		}
	}
}

// TestClose: everything goes when the backend is closed, whatever was made on it and is still held.
func TestClose(t *testing.T) {
	d := emulatedDevice(t)
	before := d.Held()
	var held []any
	for _, compute := range []string{"f32", "bf16"} {
		be, err := New(Options{Compute: compute, Driver: emulatedDriver(t), CublasLt: NoCublasLt})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range someEntries() {
			w := backendtest.NewWorld(be, false)
			run, look := e.Program(w)
			run()
			look()
			held = append(held, run)
		}
		if d.Held() == before {
			t.Error("nothing is held on the card")
		}
		if err := be.Close(); err != nil {
			t.Error(err)
		}
		if n := d.Held(); n != before {
			t.Errorf("%s: %d bytes are held after Close, %d before New", compute, n, before)
		}
	}
	_ = held
}

// TestDropped: what nobody has any more is given back when memory is asked for.
func TestDropped(t *testing.T) {
	d := emulatedDevice(t)
	be := emulated(t, "f32")
	e := backendtest.Entries()[0]
	backendtest.Execute(be, false, e.Program)
	var most int64
	for i := range 60 {
		backendtest.Execute(be, false, e.Program)
		collectGarbage()
		if i == 5 {
			most = d.Held()
		}
	}
	if n := d.Held(); n > 2*most {
		t.Errorf("%d bytes are held after 60 runs, %d after 5", n, most)
	}
}
