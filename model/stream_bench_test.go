package model_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/mmap"
	"github.com/biolora/biolora/internal/stream"
	"github.com/biolora/biolora/model"
)

// fromDisk is what the process has had read from disks.
func fromDisk(b *testing.B) (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("this system does not say what a process reads: ", err)
	}
	_, rest, _ := strings.Cut(string(text), "\nread_bytes: ")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		b.Fatal(err)
	}
	return bytes
}

// BenchmarkStream is a step on a checkpoint (BIOLORA_STREAM is its directory) of which hardly more than two layers may
// be in memory: micro-batches of 16 tokens and of 128, one and four a step. It tells what a step reads from the disk,
// the disk's own rate, measured before each, and the step's time as a multiple of what reading at that rate takes.
func BenchmarkStream(b *testing.B) {
	dir := os.Getenv("BIOLORA_STREAM")
	if dir == "" {
		b.Skip("BIOLORA_STREAM does not name a checkpoint")
	}
	for _, rows := range []int{16, 128} {
		for _, batches := range []int{1, 4} {
			b.Run(fmt.Sprintf("tokens=%d/batches=%d", rows, batches), func(b *testing.B) { benchmarkStream(b, dir, rows, batches) })
		}
	}
}

func benchmarkStream(b *testing.B, dir string, rows, batches int) {
	m, err := model.Open(dir, model.Options{Stream: "never"})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	adapt(b, m, 0, "q_proj", "v_proj")
	batch := &model.Batch{}
	batch.Append(make([]int32, rows))
	batch.Targets = append(batch.Targets, model.Target{Row: int32(rows) - 1, Label: 1, Count: 1})
	load := model.Load{Rows: rows, Selected: 1, Keys: rows, Batches: batches}
	p, err := m.Plan(load)
	if err != nil {
		b.Fatal(err)
	}
	rate := diskRate(b, m.Parts())
	m.SetOptions(model.Options{Stream: "always", MemoryLimit: p.Peak * 2})
	if p, err = m.Reserve(load); err != nil {
		b.Fatal(err)
	}
	var window []*model.Batch
	for range batches {
		window = append(window, batch)
	}
	step := func() {
		if err := m.BackwardAll(b.Context(), window); err != nil {
			b.Fatal(err)
		}
	}
	step()
	before, stats := fromDisk(b), must(m.Streamed())
	for b.Loop() {
		step()
	}
	read := float64(fromDisk(b)-before) / float64(b.N)
	after := must(m.Streamed())
	perStep := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(read/1e9, "GB-read/op")
	b.ReportMetric(float64(p.Stream.Read)/1e9, "GB-planned/op")
	b.ReportMetric(rate/1e9, "disk-GB/s")
	b.ReportMetric(perStep/(float64(p.Stream.Read)/rate), "x-disk")
	b.ReportMetric((after.Waiting-stats.Waiting).Seconds()/float64(b.N), "waiting-s/op")
}

func must(s model.StreamStats, _ bool) model.StreamStats { return s }

// diskRate reads all parts from the disk, and nothing else meanwhile, in bytes a second.
func diskRate(b *testing.B, parts []stream.Part) float64 {
	for _, p := range parts {
		for _, r := range p.Ranges {
			mmap.Drop(r)
		}
	}
	s := stream.New(parts, 1<<60)
	defer s.Close()
	order := make([]int, len(parts))
	for i := range order {
		order[i] = i
	}
	before, began := fromDisk(b), time.Now()
	s.Begin(order)
	for _, i := range order {
		if err := s.Use(b.Context(), i); err != nil {
			b.Fatal(err)
		}
	}
	return float64(fromDisk(b)-before) / time.Since(began).Seconds()
}
