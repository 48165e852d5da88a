//go:build unix

package gemm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
)

// measure runs f until the benchmark has enough, and reports the rate by the clock and by the processor time of all
// threads: the second is the rate of one core, and stands also where other programs run.
func measure(b *testing.B, flop float64, f func()) {
	f()
	start := cpuSeconds()
	for b.Loop() {
		f()
	}
	flop *= float64(b.N) / 1e9
	b.ReportMetric(flop/b.Elapsed().Seconds(), "GFLOP/s")
	b.ReportMetric(flop/(cpuSeconds()-start), "GFLOP/cpu-s")
	b.ReportMetric(0, "ns/op")
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkWeight is a linear of LLaMA-7B's width, packing included.
func BenchmarkWeight(b *testing.B) {
	const n, k, rows = 4096, 4096, 2048
	rng := rand.New(rand.NewPCG(1, 1))
	x := random(rng, rows*n)
	y := make([]float32, rows*(n+32))
	data := encode(random(rng, n*k), numeric.BF16)
	for _, ker := range paths() {
		for _, workers := range []int{1, 2} {
			e := engine(b, ker, workers)
			for _, c := range []Compute{F32, BF16} {
				for _, m := range []int{1, 16, 256, 512, 1024, rows} {
					if ker == &goKernels && m > 16 || m > 512 && (c == F32 || !ker.pairs) {
						continue // slow
					}
					var p Packed
					w := Weight{DType: numeric.BF16, Rows: n, Cols: k, Data: data}
					for name, f := range map[string]func(){
						"forward":  func() { e.Forward(y, n+32, &p, w, nil, 0) },
						"backward": func() { e.Backward(y, n+32, &p, w, nil, 0) },
					} {
						b.Run(fmt.Sprintf("%s/%v/%s/m=%d/threads=%d", ker.name, c, name, m, workers), func(b *testing.B) {
							measure(b, 2*float64(m)*n*k, func() {
								e.Pack(&p, c, x, m, k, k)
								f()
							})
						})
					}
				}
			}
		}
	}
}

// BenchmarkBase multiplies with one weight in the formats of a base, in turn, and reports the rate of each against that
// of bf16: ratios of the median processor times of one thread, which stand also where other programs run.
func BenchmarkBase(b *testing.B) {
	const n, k = 4096, 4096
	rng := rand.New(rand.NewPCG(1, 1))
	v := random(rng, n*k)
	x, y := random(rng, 512*n), make([]float32, 512*(n+32))
	names := []string{"bf16", "f16", "nf4", "int8"}
	bases := []Weight{
		{DType: numeric.BF16, Rows: n, Cols: k, Data: encode(v, numeric.BF16)},
		{DType: numeric.F16, Rows: n, Cols: k, Data: encode(v, numeric.F16)},
		quantised(quantise(b, quant.NF4, v, n, k)),
		quantised(quantise(b, quant.Int8, v, n, k)),
	}
	for _, ker := range paths() {
		e := engine(b, ker, 1)
		for _, c := range []Compute{F32, BF16} {
			for _, m := range []int{16, 256, 512} {
				for name, product := range map[string]func([]float32, int, *Packed, Weight, []float32, int){"forward": e.Forward, "backward": e.Backward} {
					if ker == &goKernels {
						continue
					}
					b.Run(fmt.Sprintf("%s/%v/%s/m=%d", ker.name, c, name, m), func(b *testing.B) {
						var p Packed
						e.Pack(&p, c, x, m, k, k)
						times := make([][]float64, len(bases))
						for b.Loop() {
							for i, base := range bases {
								start := cpuSeconds()
								product(y, n+32, &p, base, nil, 0)
								times[i] = append(times[i], cpuSeconds()-start)
							}
						}
						for i := range times {
							slices.Sort(times[i])
						}
						half := len(times[0]) / 2
						b.ReportMetric(2*float64(m)*n*k/1e9/times[0][half], "bf16-GFLOP/s")
						for i := range bases[1:] {
							b.ReportMetric(times[0][half]/times[i+1][half], names[i+1]+"/bf16")
						}
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}

// BenchmarkFewRows multiplies one to eight rows with a weight that no cache holds, and reports how fast a thread reads
// the weight, and which share that is of what reading alone reaches in the same run: medians by processor time.
func BenchmarkFewRows(b *testing.B) {
	const n, k, rows, seed = 12288, 8192, 8, 1 << 20
	rng := rand.New(rand.NewPCG(1, 1))
	x, y := random(rng, rows*k), make([]float32, rows*n)
	v := random(rng, seed)
	for _, name := range []string{"BF16", "F16", "F32", "nf4", "int8"} {
		w := Weight{Rows: n, Cols: k}
		if f, err := quant.Parse(name); err == nil {
			w.Quant = anyMatrix(b, rng, f, n, k)
			for i := range len(w.Quant.Scales) / 4 * int(f-quant.NF4) {
				binary.LittleEndian.PutUint32(w.Quant.Scales[4*i:], math.Float32bits(0.01))
			}
			w.Data = w.Quant.Codes
		} else {
			w.DType, _ = numeric.Parse(name)
			w.Data = bytes.Repeat(encode(v, w.DType), n*k/seed)
		}
		for _, workers := range []int{1, 2} {
			for _, ker := range paths() {
				if ker == &goKernels {
					continue
				}
				e := engine(b, ker, workers)
				read := e.reading(w.Data)
				for _, c := range []Compute{F32, BF16} {
					for _, m := range []int{1, 4, 8} {
						b.Run(fmt.Sprintf("%s/%s/%v/m=%d/threads=%d", name, ker.name, c, m, workers), func(b *testing.B) {
							var p Packed
							e.Pack(&p, c, x, m, k, k)
							var times, reading []float64
							for b.Loop() {
								start := cpuSeconds()
								e.Forward(y, n, &p, w, nil, 0)
								times = append(times, cpuSeconds()-start)
								start = cpuSeconds()
								e.pool.Run(len(w.Data)/readBytes, read)
								reading = append(reading, cpuSeconds()-start)
							}
							slices.Sort(times)
							slices.Sort(reading)
							size := float64(len(w.Data)) / 1e9
							b.ReportMetric(size/times[len(times)/2], "GB/cpu-s")
							b.ReportMetric(reading[len(times)/2]/times[len(times)/2], "share")
							b.ReportMetric(0, "ns/op")
						})
					}
				}
			}
		}
	}
}

// BenchmarkCeiling is the kernels on operands in the first-level cache.
func BenchmarkCeiling(b *testing.B) {
	for _, ker := range paths() {
		for c, f := range map[Compute]format{F32: plainF32, BF16: ker.format(BF16)} {
			if f == roundedF32 {
				continue
			}
			b.Run(fmt.Sprintf("%s/%v", ker.name, c), func(b *testing.B) {
				call, flop := ker.alone(f)
				measure(b, 100*flop, func() {
					for range 100 {
						call()
					}
				})
			})
		}
	}
}

// BenchmarkGemm is the shapes of the low-rank branch and of attention.
func BenchmarkGemm(b *testing.B) {
	const rank, hidden, rows = 16, 4096, 512
	rng := rand.New(rand.NewPCG(1, 1))
	v, c := random(rng, hidden*rows), make([]float32, hidden*rows)
	for _, s := range []struct {
		name    string
		m, n, k int
		a, b    View
	}{
		{"xA", rows, rank, hidden, View{v, hidden, 1}, View{v, 1, hidden}},
		{"hB", rows, hidden, rank, View{v, rank, 1}, View{v, 1, rank}},
		{"dyB", rows, rank, hidden, View{v, hidden, 1}, View{v, rank, 1}},
		{"dB", hidden, rank, rows, View{v, 1, hidden}, View{v, rank, 1}},
		{"dA", rank, hidden, rows, View{v, 1, rank}, View{v, hidden, 1}},
		{"dx", rows, hidden, rank, View{v, rank, 1}, View{v, hidden, 1}},
		{"scores", 64, 512, 128, View{v, 128, 1}, View{v, 1, 4096}},
		{"values", 64, 128, 512, View{v, 512, 1}, View{v, 4096, 1}},
	} {
		for _, ker := range paths() {
			if ker == &goKernels || ker.name == "avx512_bf16" {
				continue
			}
			e := engine(b, ker, 1)
			if ker.tiles != nil {
				e.RoundGemm()
			}
			b.Run(s.name+"/"+ker.name, func(b *testing.B) {
				measure(b, 2*float64(s.m*s.n*s.k), func() { e.Gemm(c, s.n, s.m, s.n, s.k, 1, s.a, s.b, false) })
			})
		}
	}
}
