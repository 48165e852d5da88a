package backend

import "sync/atomic"

// Batch is the rows of a micro-batch, all sequences one after another.
type Batch struct {
	Tokens    []int32
	Positions []int32 // of each row within its sequence
	Segments  []Segment
	// Cos and Sin [T, HeadDim/2] rotate each row's queries and keys: pairs are (i, i + HeadDim/2).
	Cos, Sin []float32

	Rows    []int32  // the distinct rows whose logits are wanted, ascending
	Targets []Target // in the order in which the losses are summed

	Dropout *Dropout // nil: none (evaluation, or no dropout)

	// Serial is another one for each content a batch ever has, so that a device keeps what it copied of it from operation
	// to operation; 0: unknown, it is copied for each. Changed sets it.
	Serial uint64
}

var serials atomic.Uint64

// Changed gives the batch a serial that none has had: its contents are new.
func (b *Batch) Changed() { b.Serial = serials.Add(1) }

// Segment is a run of rows that are consecutive positions of one sequence.
//
// Its keys are those of Prefix (and of that segment's own prefix, and so on), then the Past positions its cache
// slot holds already, then its own rows up to the query's. A prefix has a lower index.
type Segment struct {
	Start, Len int32 // rows of the batch; Len may be 0 for a cached prefix
	Prefix     int32 // index of the segment this one continues, or -1
	Slot       int32 // where the cache keeps this segment's keys and values, or -1
	Past       int32 // positions the slot holds already
}

// Target is a label at a row.
type Target struct {
	Row   int32 // index into Batch.Rows
	Label int32
	Count int32 // how many samples have this label here
}

// Dropout says which columns are dropped: a pure function of these numbers, the row's position, the linear's
// site and the column, so that it depends neither on batching nor on threads nor on recomputing.
type Dropout struct {
	Seed    uint64
	Epoch   uint32
	Samples []uint32 // of each row
}
