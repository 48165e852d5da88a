package cuda

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/mmap"
)

// random is n bytes that are never the same.
func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// What is uploaded arrives, though the source changes at once and the card lags as far as it may; pieces come around the
// ring, as small ones and as such that are larger than it.
func TestUpload(t *testing.T) {
	device := emulatedDevice(t)
	defer device.SetOrder(0)
	for _, order := range []uint64{0, 1, 5} {
		device.SetOrder(order)
		be := emulated(t, "f32")
		leave := be.enter()
		rng := rand.New(rand.NewPCG(order, 1))
		var mem memory
		be.grow(&mem, 48<<20)
		want, at := make([]byte, 48<<20), 0
		for _, n := range []int{100, 1, 3 << 20, 5 << 20, 20 << 20, 7 << 20, 4 << 20, 8 << 20} {
			for range 3 { // small ones between
				src := random(rng, 33)
				copy(want[at:], src)
				be.upload(mem.at+driver.Ptr(at), src)
				clear(src)
				at += 33
			}
			src := random(rng, n)
			copy(want[at:], src)
			be.upload(mem.at+driver.Ptr(at), src)
			clear(src)
			at += n
			if at > 40<<20 {
				break
			}
		}
		for range 3 * ringPieces { // more than there are events
			src := random(rng, 17)
			copy(want[at:], src)
			be.upload(mem.at+driver.Ptr(at), src)
			clear(src)
			at += 17
		}
		got := make([]byte, at)
		be.fetch(got, mem.at)
		if !bytes.Equal(got, want[:at]) {
			t.Errorf("order %d: what arrived is not what was sent", order)
		}
		leave()
	}
}

// A batch's upload waits for nothing that the card has yet to do.
func TestUploadDoesNotWait(t *testing.T) {
	device := emulatedDevice(t)
	be := emulated(t, "f32")
	defer be.enter()()
	var mem memory
	be.grow(&mem, 1<<20)
	src := make([]byte, 100<<10)
	waits := func() int { return device.Calls("cuEventSynchronize") + device.Calls("cuStreamSynchronize") }
	be.upload(mem.at, src)
	before := waits()
	for range 40 {
		be.upload(mem.at, src)
	}
	if n := waits() - before; n != 0 {
		t.Errorf("40 uploads of 100 KiB waited %d times", n)
	}
	be.wait()
}

func TestStagingAllocates(t *testing.T) {
	be := emulated(t, "f32")
	defer be.enter()()
	var mem memory
	be.grow(&mem, 1<<20)
	src := make([]byte, 100<<10)
	for range 2 * ringPieces { // each place of the ring has its event then
		be.upload(mem.at, src)
	}
	if n := testing.AllocsPerRun(100, func() { be.upload(mem.at, src) }); n != 0 {
		t.Errorf("%v allocations an upload", n)
	}
	be.wait()
}

// Weights go up in a stream of their own, in every order that its events allow: after what filled the memory before, and
// before what reads them next.
func TestUploadWeight(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	data := random(rng, 40<<20+123)
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := mmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	device := emulatedDevice(t)
	defer device.SetOrder(0)
	for order := range uint64(6) {
		device.SetOrder(order)
		be := emulated(t, "bf16")
		leave := be.enter()
		var mem, next memory
		be.grow(&mem, int64(len(data)))
		be.grow(&next, int64(len(data)))
		for i, cut := range []int{len(data), 5, 17 << 20} {
			check(be.ctx.Set(mem.at, byte(i), int64(len(data)), be.stream)) // must not come after the weight
			if err := be.uploadWeight(mem.at, m.Data[len(data)-cut:]); err != nil {
				t.Fatal(err)
			}
			check(be.ctx.Copy(next.at, mem.at, int64(cut), be.stream))
			got := make([]byte, cut)
			be.fetch(got, next.at)
			if !bytes.Equal(got, data[len(data)-cut:]) {
				t.Errorf("order %d: %d bytes arrived otherwise than they were sent", order, cut)
			}
		}
		leave()
	}
}

// A checkpoint that is cut short while it is uploaded is an error that names it.
func TestUploadWeightCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := os.WriteFile(path, make([]byte, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := mmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := os.Truncate(path, 5<<20); err != nil {
		t.Fatal(err)
	}
	be := emulated(t, "bf16")
	defer be.enter()()
	var mem memory
	be.grow(&mem, 9<<20)
	err = be.uploadWeight(mem.at, m.Data)
	if err == nil || !strings.HasPrefix(err.Error(), path+": byte ") || !strings.Contains(err.Error(), " is gone") {
		t.Errorf("%v", err)
	}
	if err := be.uploadWeight(mem.at, m.Data[:5<<20]); err != nil {
		t.Errorf("what is still there: %v", err)
	}
}
