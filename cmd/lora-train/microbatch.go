package main

import (
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/biolora/biolora/train"
)

// microBatch is the number of rows in a micro-batch, or auto.
type microBatch int

// autoBatch is as many rows as the memory has room for.
const autoBatch microBatch = math.MinInt

// UnmarshalText reads a number or auto.
func (b *microBatch) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*b = autoBatch
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return fmt.Errorf("%q is neither a whole number nor auto", text)
	}
	*b = microBatch(n)
	return nil
}

// String is what UnmarshalText reads.
func (b microBatch) String() string {
	if b == autoBatch {
		return "auto"
	}
	return strconv.Itoa(int(b))
}

// rows is the number, for auto the default, which with the accumulation says what a step has.
func (b microBatch) rows() int {
	if b == autoBatch {
		return train.Defaults().PerDeviceTrainBatchSize
	}
	return int(b)
}

// fitBatch replaces auto by what the memory has room for.
func (s *session) fitBatch(ctx context.Context, o *train.Options) error {
	if s.BatchSize != autoBatch {
		return nil
	}
	size, accumulation, err := train.FitMicroBatch(ctx, s.model, s.adapter, s.tokenizer, s.data, *o)
	if err != nil {
		return err
	}
	s.BatchSize, s.Accumulation = microBatch(size), accumulation
	o.PerDeviceTrainBatchSize, o.GradientAccumulationSteps = size, accumulation
	fmt.Fprintf(s.stderr, "%-11s micro-batches of %d rows have room, %d of them a step\n", "batches", size, accumulation)
	return nil
}
