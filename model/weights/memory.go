package weights

import (
	"slices"

	"github.com/biolora/biolora/internal/strictjson"
)

// InMemory is a checkpoint without files: of tensors whose Data lies in memory already, and of what config.json would
// say. name stands for it in messages. What Prepare makes of it stays in memory too, whatever its size, and takes the
// place of what it was made of.
func InMemory(name string, config *strictjson.Object, tensors []Tensor) (*Checkpoint, error) {
	c := &Checkpoint{path: name, dir: name, byName: map[string]int{}}
	c.config = func() (*strictjson.Object, string, error) { return config, name, nil }
	var errs []error
	for _, t := range tensors {
		t.File, t.Type, t.Shape, t.stored = name, t.DType.String(), slices.Clone(t.Shape), int64(len(t.Data))
		if want := t.Len() * t.DType.Size(); want != len(t.Data) {
			errs = append(errs, t.errorf("%v %v is %d bytes, there are %d", t.DType, t.Shape, want, len(t.Data)))
			continue
		}
		c.held += t.stored
		errs = append(errs, c.add(t))
	}
	return c, join(errs)
}
