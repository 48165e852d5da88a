package stream

// policy decides what is read and what is dropped, by when each part is used next: what is used soonest is read, what
// is used last is dropped for it (Belady's rule, which reads least). Of uses it knows the order of a pass through the
// model, and expects that the next passes are like it.
type policy struct {
	sizes  []int64 // bytes of each part
	pinned []bool  // never dropped
	budget int64   // bytes that the parts in memory may take
	order  []int   // of uses
	at     int     // index of the use that is going on
	in     []bool  // in memory, or being read
	held   int64   // bytes of these
	next   []int   // of each part: how many uses from now it is used next; len(order) and more: never
}

func newPolicy(sizes []int64, pinned []bool, budget int64) *policy {
	return &policy{sizes: sizes, pinned: pinned, budget: budget, in: make([]bool, len(sizes)), next: make([]int, len(sizes))}
}

// begin starts a pass.
func (p *policy) begin(order []int) { p.order, p.at = order, 0 }

// use goes on to the next use of part i. It reports whether that is another use than the one that was going on, and
// whether there is one at all.
func (p *policy) use(i int) (another, ok bool) {
	for d := range p.order {
		if at := (p.at + d) % len(p.order); p.order[at] == i {
			p.at = at
			return d > 0, true
		}
	}
	return false, false
}

// look finds when each part is used next.
func (p *policy) look() {
	for i := range p.next {
		p.next[i] = len(p.order)
	}
	for d := len(p.order) - 1; d >= 0; d-- {
		p.next[p.order[(p.at+d)%len(p.order)]] = d
	}
}

// ahead is how many uses ahead something is dropped for what is read. More would keep the disk no busier, and drop what
// a pass in one direction comes back to; with less the reading could not go on while a part is in use.
const ahead = 2

// step says which part is to be read now, and appends to drop what has to go first. ok is false where there is nothing
// to read, or no room: all that is in memory is used before it, or it is not due yet. The part in use is read whether
// there is room or not.
func (p *policy) step(drop []int) (read int, dropped []int, ok bool) {
	p.look()
	read = -1
	for i, d := range p.next {
		if !p.in[i] && d < len(p.order) && (read < 0 || d < p.next[read]) {
			read = i
		}
	}
	if read < 0 {
		return 0, drop, false
	}
	if p.next[read] > 0 && p.held+p.sizes[read]-p.room(read) > p.budget {
		return 0, drop, false
	}
	for p.held+p.sizes[read] > p.budget {
		last := p.last(read)
		if last < 0 {
			break
		}
		p.in[last] = false
		p.held -= p.sizes[last]
		drop = append(drop, last)
	}
	p.in[read] = true
	p.held += p.sizes[read]
	return read, drop, true
}

// room is how much can be dropped for read now.
func (p *policy) room(read int) (bytes int64) {
	for i := range p.in {
		if p.goes(i, read) && p.next[read] <= ahead {
			bytes += p.sizes[i]
		}
	}
	return bytes
}

// goes reports whether part i may be dropped for read: it is used later.
func (p *policy) goes(i, read int) bool {
	return p.in[i] && !p.pinned[i] && p.next[i] > p.next[read]
}

// last is the part that is used last of those that may be dropped for read; -1: there is none.
func (p *policy) last(read int) int {
	last := -1
	for i := range p.in {
		if p.goes(i, read) && (last < 0 || p.next[i] > p.next[last]) {
			last = i
		}
	}
	return last
}

// Reads is how many bytes a pass in this order reads when many like it have gone before. parts are sizes; of pinned
// ones nothing is read then.
func Reads(sizes []int64, pinned []bool, order []int, budget int64) (bytes int64) {
	p := newPolicy(sizes, pinned, budget)
	for range 3 {
		bytes = 0
		p.begin(order)
		for _, i := range order {
			p.use(i)
			for {
				read, _, ok := p.step(nil)
				if !ok {
					break
				}
				bytes += sizes[read]
			}
		}
	}
	return bytes
}
