package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/strictjson"
)

const (
	maxIndex  = 16 << 20 // bytes; that of a model with 100,000 tensors has 10 MB
	maxShards = 10_000
)

// openIndex reads the index called name and opens the shards that it names.
func (c *Checkpoint) openIndex(name string) error {
	path := filepath.Join(c.dir, name)
	o, err := strictjson.ReadObject(path, maxIndex)
	if err != nil {
		return explainMissing(path, err)
	}
	ending := ".bin"
	if strings.Contains(name, ".safetensors.") {
		ending, c.index = ".safetensors", o
	}
	want, err := parseIndex(o, ending)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return c.openShards(slices.Sorted(maps.Keys(want)), want, name)
}

// parseIndex returns the tensors that each file should hold, in the order of the index. The files' names have the
// given ending.
func parseIndex(o *strictjson.Object, ending string) (map[string][]string, error) {
	v, ok := o.Get("weight_map")
	if !ok {
		return nil, errors.New("weight_map is missing")
	}
	m, ok := v.(*strictjson.Object)
	if !ok {
		return nil, fmt.Errorf("weight_map: want an object, got %s", strictjson.Kind(v))
	}
	if len(m.Keys) == 0 {
		return nil, errors.New("weight_map is empty")
	}
	want := map[string][]string{}
	bad := map[string]bool{}
	var errs []error
	for _, name := range m.Keys {
		v, _ := m.Get(name)
		file, ok := v.(string)
		if !ok {
			errs = append(errs, fmt.Errorf("weight_map: %s: want a file name, got %s", quoted(name), strictjson.Kind(v)))
			continue
		}
		if err := checkFileName(file, ending); err != nil && !bad[file] {
			bad[file] = true
			errs = append(errs, fmt.Errorf("weight_map: %s: %w", quoted(name), err))
		}
		want[file] = append(want[file], name)
	}
	if len(want) > maxShards {
		errs = append(errs, fmt.Errorf("weight_map: %d files, at most %d are plausible", len(want), maxShards))
	}
	return want, join(errs)
}

// checkFileName lets an index name only files that lie beside it. What lies there may be a symbolic link to anywhere,
// as it is in Hugging Face's cache.
func checkFileName(file, ending string) error {
	switch {
	case file == "" || file == "." || file == ".." || strings.ContainsAny(file, "/\\:\x00") || !filepath.IsLocal(file):
		return fmt.Errorf("%s is not a plain file name", quoted(file))
	case !strings.HasSuffix(file, ending):
		return fmt.Errorf("%s is not a %s file", quoted(file), ending)
	}
	return nil
}

// openShards opens files, which should hold the tensors in want (nil: whatever they hold), as index says.
func (c *Checkpoint) openShards(files []string, want map[string][]string, index string) error {
	var shards []*shard
	var errs []error
	for _, file := range files {
		path := filepath.Join(c.dir, file)
		s, err := openShard(path)
		if errors.Is(err, fs.ErrNotExist) && want != nil && !exists(path) {
			err = fmt.Errorf("%s is missing; %s says that it holds %s", path, index, list(want[file]))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.take(s)
		shards = append(shards, s)
		errs = append(errs, missingTensors(s, want[file], index))
	}
	if err := join(errs); err != nil {
		return err
	}
	return c.collect(shards, owners(want), index)
}

func missingTensors(s *shard, want []string, index string) error {
	var missing []string
	for _, name := range want {
		if _, ok := s.byName[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s does not hold %s, though %s says so", s.path, list(missing), index)
}

// owners turns the tensors of each file into the file of each tensor.
func owners(want map[string][]string) map[string]string {
	owner := map[string]string{}
	for file, names := range want {
		for _, name := range names {
			owner[name] = file
		}
	}
	return owner
}

// collect lists the tensors of all shards. The index says which shard counts where two hold the same name; tensors
// that the index leaves out belong to the checkpoint too, as they do for Transformers.
func (c *Checkpoint) collect(shards []*shard, owner map[string]string, index string) error {
	var errs []error
	for _, s := range shards {
		file := filepath.Base(s.path)
		for _, t := range s.tensors {
			if o, ok := owner[t.Name]; ok && o != file {
				continue
			}
			if err := c.add(t); err != nil {
				errs = append(errs, fmt.Errorf("%w, and %s does not say which counts", err, index))
			}
		}
	}
	return join(errs)
}
