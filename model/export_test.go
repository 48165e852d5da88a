package model

import "github.com/biolora/biolora/internal/backend"

// OpenOn is Open on a given backend, for tests.
func OpenOn(dir string, o Options, be backend.Backend) (*Model, error) { return open(dir, o, be) }
