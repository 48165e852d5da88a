package cuda

import (
	"os"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// emulatedLt opens the emulated device with the emulated cublasLt.
func emulatedLt(t testing.TB, compute string) (*Backend, *emu.Device) {
	t.Helper()
	d, path := emulatedDevice(t), emulatedDriver(t)
	t.Cleanup(func() { d.SetLtUnsupported(0) })
	be, err := New(Options{Compute: compute, Driver: path, CublasLt: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := be.Close(); err != nil {
			t.Error(err)
		}
	})
	if by, missing := be.Products(); by != "cublasLt 12.1.3" || missing != nil {
		t.Errorf("products by %q, %v", by, missing)
	}
	return be, d
}

// Products of all types and transpositions, by cublasLt alone, and where it refuses every second shape.
func TestLt(t *testing.T) {
	be, device := emulatedLt(t, "bf16")
	for _, unsupported := range []int{0, 2} {
		device.SetLtUnsupported(unsupported)
		kernels, products := device.Calls("cuLaunchKernel"), device.Calls("cublasLtMatmul")
		n := 0
		for _, s := range [][3]int{{1, 1, 1}, {5, 16, 70}, {33, 24, 8}, {17, 3, 129}} {
			for trans := range 4 {
				for _, offset := range []int{0, 3} {
					for _, beta := range []float32{0, 0.5} {
						ta, tb := trans&1 > 0, trans&2 > 0
						testProduct(t, be, s[0], s[1], s[2]+unsupported, ta, tb, true, true, beta, offset)
						testProduct(t, be, s[0], s[1], s[2]+unsupported, ta, tb, true, false, beta, offset)
						testProduct(t, be, s[0], s[1], s[2]+unsupported, ta, tb, false, false, beta, offset)
						n += 3
						if beta != 0 {
							n += 3 // c beside d, and c in d's place
						}
					}
				}
			}
		}
		kernels, products = device.Calls("cuLaunchKernel")-kernels, device.Calls("cublasLtMatmul")-products
		if unsupported == 0 && (kernels != 0 || products != n) || unsupported > 0 && (kernels == 0 || products == 0 || products == n) {
			t.Errorf("every %dth refused: %d products, %d by cublasLt, %d launches of kernels", unsupported, n, products, kernels)
		}
	}
}

// A product is planned once a shape and alignment, also where the plan is that cublasLt does not know it; plans that
// nobody asked for of late make room; a product whose plan is there allocates nothing.
func TestLtPlans(t *testing.T) {
	be, device := emulatedLt(t, "f32")
	defer be.enter()()
	var m memory
	be.grow(&m, 1<<16)
	check(be.ctx.Set(m.at, 0, 1<<16, be.stream))
	at := func(i int) driver.Ptr { return m.at + driver.Ptr(i) }
	product := func() bool {
		return be.cublas(8, 16, 24, 1, operand{at: at(0), ld: 24}, operand{at: at(4096), ld: 16}, 0, result{}, result{at: at(8192), ld: 16})
	}
	asked := func() int { return device.Calls("cublasLtMatmulAlgoGetHeuristic") }
	before := asked()
	if first, second := product(), product(); !first || !second || asked() != before+1 {
		t.Errorf("%d plans for one product", asked()-before)
	}
	if n := testing.AllocsPerRun(10, func() { product() }); n != 0 {
		t.Errorf("%v allocations a product", n)
	}
	if be.cublas(8, 16, 24, 1, operand{at: at(4), ld: 24}, operand{at: at(4096), ld: 16}, 0, result{}, result{at: at(8192), ld: 16}); asked() != before+2 {
		t.Error("another alignment has the same plan")
	}
	device.SetLtUnsupported(1)
	unknown := func() bool {
		return be.cublas(9, 16, 24, 1, operand{at: at(0), ld: 24}, operand{at: at(4096), ld: 16}, 0, result{}, result{at: at(8192), ld: 16})
	}
	if first, second := unknown(), unknown(); first || second || asked() != before+3 {
		t.Errorf("what cublasLt does not know was asked for %d times", asked()-before-2)
	}
	device.SetLtUnsupported(0)
	for rows := range ltPlans {
		be.ltPlan(driver.Product{M: 8, N: rows + 1, K: 8, LdA: 8, LdB: 8, LdC: 8, LdD: 8, AlignA: 16, AlignB: 16, AlignC: 16, AlignD: 16})
	}
	if n := len(be.lt.plans); n > ltPlans {
		t.Errorf("%d plans are kept, at most %d", n, ltPlans)
	}
	if !product() {
		t.Error("no plan after others made room")
	}
	be.wait()
}

// A mistake in what cublasLt is given is an error with the product's shape.
func TestLtRefuses(t *testing.T) {
	be, _ := emulatedLt(t, "f32")
	defer be.enter()()
	var m memory
	be.grow(&m, 4096)
	wrong := func(want string, f func()) {
		t.Helper()
		defer func() {
			if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}()
		f()
	}
	wrong("cuda: product [8, 24] x [24, 16]: cublasLtMatrixLayoutCreate: CUBLAS_STATUS_INVALID_VALUE (7)", func() {
		be.cublas(8, 16, 24, 1, operand{at: m.at, ld: 20}, operand{at: m.at, ld: 16}, 0, result{}, result{at: m.at + 2048, ld: 16})
	})
	wrong("cublasLtMatmul: CUBLAS_STATUS_INVALID_VALUE (7)", func() { // beyond what is allocated
		be.cublas(8, 16, 24, 1, operand{at: m.at, ld: 24}, operand{at: m.at, ld: 16}, 0, result{}, result{at: m.at + 4096 - 64, ld: 16})
	})
}

// Without cublasLt there are own kernels, and the reason is told.
func TestLtMissing(t *testing.T) {
	path := emulatedDriver(t)
	t.Setenv("BIOLORA_CUBLASLT", "/no/such/libcublasLt.so")
	be, err := New(Options{Driver: path})
	if err != nil {
		t.Fatal(err)
	}
	by, missing := be.Products()
	if by != "own kernels" || missing == nil || !strings.Contains(missing.Error(), "/no/such/libcublasLt.so") {
		t.Errorf("%q, %v", by, missing)
	}
	if err := be.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("BIOLORA_CUBLASLT", NoCublasLt)
	if be, err = New(Options{Driver: path}); err != nil {
		t.Fatal(err)
	}
	if by, missing := be.Products(); by != "own kernels" || missing.Error() != "cublasLt is turned off" {
		t.Errorf("%q, %v", by, missing)
	}
	if err := be.Close(); err != nil {
		t.Error(err)
	}
	// A library of that name that is none.
	none := t.TempDir() + "/libcublasLt.so.12"
	if err := os.WriteFile(none, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if be, err = New(Options{Driver: path, CublasLt: none}); err != nil {
		t.Fatal(err)
	}
	if _, missing := be.Products(); missing == nil {
		t.Error("a file that is no library was opened")
	}
	if err := be.Close(); err != nil {
		t.Error(err)
	}
}
