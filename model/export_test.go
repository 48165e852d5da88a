package model

import (
	"context"

	"github.com/biolora/biolora/internal/backend"
	"github.com/biolora/biolora/internal/numeric"
)

// OpenOn is Open on a given backend, for tests.
func OpenOn(dir string, o Options, be backend.Backend) (*Model, error) {
	return open(context.Background(), dir, o, be, numeric.F32)
}
