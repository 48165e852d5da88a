// Package profile tells where the time of a decoder's operations goes: a Watch adds it up by kind of work, and Backend
// switches the watch as operations begin and end. Without it no operation looks at a clock.
package profile

import "time"

// Work is a kind of work. Each moment counts for one kind: the innermost that has begun.
type Work uint8

const (
	Other       Work = iota // between operations
	Forward                 // products of activations with frozen weights, what is computed again for the backward pass among them
	Backward                // products of gradients with frozen weights
	Packing                 // activations and gradients brought into the order of the products, where that is a pass of its own
	Branch                  // low-rank branches, forward and backward; and gradients of weights that are trained whole
	Attention               // forward and backward
	Elementwise             // embedding, norms, SwiGLU, bias, gathering of rows
	Loss                    // head and cross-entropy, forward and backward, their products included
	Optimizer               // gradients set to zero, their norm and scale, AdamW
	Works                   // how many kinds there are
)

var names = [Works]string{
	Other: "rest", Forward: "frozen weights, forward", Backward: "frozen weights, backward", Packing: "packing",
	Branch: "low-rank branches", Attention: "attention", Elementwise: "norms, elementwise", Loss: "head and loss",
	Optimizer: "optimizer",
}

// String names the kind for a reader.
func (w Work) String() string { return names[w] }

// Times is what a Watch has seen.
type Times struct {
	Spent    [Works]time.Duration
	Rows     int // of the micro-batches: tokens that were computed
	Selected int // of these, rows that were given to the head
}

// Total is all of the time.
func (t *Times) Total() (sum time.Duration) {
	for _, d := range t.Spent {
		sum += d
	}
	return sum
}

// Watch adds up time by kind of work. It belongs to one goroutine. The zero value is ready; a nil one does nothing.
type Watch struct {
	times Times
	now   Work
	since time.Time
	clock func() time.Time // nil: time.Now
	wait  func()           // until a device has done what it was given; nil: operations have ended when they return
}

// Enter begins a kind of work and returns the one that it interrupts, for Leave. All that is done for the loss counts
// for the loss.
func (w *Watch) Enter(k Work) (before Work) {
	if w == nil {
		return Other
	}
	before = w.now
	if before != Loss {
		w.turn(k)
	}
	return before
}

// Leave goes back to what Enter interrupted.
func (w *Watch) Leave(before Work) {
	if w != nil {
		w.turn(before)
	}
}

func (w *Watch) turn(to Work) {
	if w.wait != nil {
		w.wait()
	}
	t := w.time()
	if !w.since.IsZero() {
		w.times.Spent[w.now] += t.Sub(w.since)
	}
	w.now, w.since = to, t
}

func (w *Watch) time() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return time.Now()
}

// Take returns what was seen since the Take before, and begins anew. Before the first one nothing is seen but inside of
// operations.
func (w *Watch) Take() Times {
	w.turn(Other)
	t := w.times
	w.times = Times{}
	return t
}
