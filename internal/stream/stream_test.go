package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/mmap"
)

// layered is a mapped file of n parts of so many bytes and a pinned one behind them, part i full of byte i.
func layered(t *testing.T, n, size int) (parts []Part, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "model.safetensors")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, (n+1)*size)
	for i := range data {
		data[i] = byte(i / size)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // the system does not let go of what is not on the disk yet
		t.Fatal(err)
	}
	m, err := mmap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for i := range n + 1 {
		r := m.Data[i*size : (i+1)*size]
		parts = append(parts, Part{Ranges: [][]byte{r[size/2:], r[:size/3], r[size/3 : size/2]}, Pinned: i == n})
	}
	return parts, path
}

// Whatever order parts are used in, each holds what the file holds, and closing ends the reading wherever it is.
func TestUse(t *testing.T) {
	const n, size = 7, 300_001
	parts, _ := layered(t, n, size)
	before := runtime.NumGoroutine()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := New(parts, int64(size*(1+r.IntN(n))))
		for range r.IntN(3) {
			order := sweep(n, r.IntN(n))
			s.Begin(order)
			for _, i := range order {
				for range 2 {
					if err := s.Use(t.Context(), i); err != nil {
						t.Fatal(err)
					}
				}
				if !s.ready[i] {
					t.Fatalf("part %d is not ready", i)
				}
				for _, r := range parts[i].Ranges {
					if r[0] != byte(i) || r[len(r)-1] != byte(i) {
						t.Fatalf("part %d holds %d", i, r[0])
					}
				}
			}
		}
		if s.Begin([]int{0}); seed%2 == 0 && s.Use(t.Context(), 3) == nil {
			t.Error("a part that is not in the order is used")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	now := runtime.NumGoroutine()
	for deadline := time.Now().Add(5 * time.Second); now > before && time.Now().Before(deadline); now = runtime.NumGoroutine() {
		time.Sleep(time.Millisecond) // it has said that it is done, and returns
	}
	if now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}
}

// A file that was cut short is an error that says so, for whoever waits and from then on; it ends the reading.
func TestFileCutShort(t *testing.T) {
	const n, size = 4, 1 << 20
	parts, path := layered(t, n, size)
	s := New(parts, 2*size)
	defer s.Close()
	s.Begin(sweep(n, 0))
	if err := s.Use(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < n; i++ {
		err = s.Use(t.Context(), i)
	}
	if err == nil || !strings.Contains(err.Error(), path+": byte ") || !strings.Contains(err.Error(), " is gone: the file was cut short while it was in use") {
		t.Fatalf("a file that was cut short: %v", err)
	}
	if again := s.Use(t.Context(), 0); again == nil {
		t.Error("the error is forgotten")
	}
}

// The end of a context ends the waiting, not the reading.
func TestContext(t *testing.T) {
	const n, size = 3, 1 << 20
	parts, _ := layered(t, n, size)
	s := New(parts, 4*size)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Begin(sweep(n, 0))
	s.mu.Lock()
	s.policy.in[2], s.policy.held = true, s.policy.held+size // so that it is never read
	s.mu.Unlock()
	if err := s.Use(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Use(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled while it waits: %v", err)
	}
	if err := s.Use(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if got := s.Stats(); got.Read < size || got.Reading <= 0 || got.Waiting < 10*time.Millisecond {
		t.Errorf("%+v", got)
	}
}
