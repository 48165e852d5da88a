// Package weights reads a Hugging Face checkpoint directory as named tensors that stay in their files until they are
// used, and writes a changed copy of one shard by shard.
package weights

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// The names that Hugging Face gives to the files of a checkpoint.
const (
	SingleFile = "model.safetensors"
	IndexFile  = "model.safetensors.index.json"
)

const maxIndex = 100_000_000 // bytes; the index of a large model has some hundred thousand

// Tensor is one tensor of a checkpoint.
type Tensor struct {
	Name  string
	DType numeric.DType // numeric.Invalid where package numeric has no such format
	Type  string        // the format as the file names it: "BF16", "F8_E4M3"
	Shape []int         // empty for a scalar
	Data  []byte        // row-major, little-endian; mapped, possibly unaligned; not to be written to
	File  string        // the path of the file that holds it
}

// Checkpoint is an open checkpoint directory.
type Checkpoint struct {
	dir     string
	shards  []*safetensors.File
	tensors []Tensor
	byName  map[string]int
	index   *strictjson.Object // nil without an index file
}

// Open maps the weights in dir: model.safetensors, or the shards that model.safetensors.index.json names. It takes
// neither time nor memory for the data. A problem with the shards is reported for all of them at once.
func Open(dir string) (*Checkpoint, error) {
	c := &Checkpoint{dir: dir, byName: map[string]int{}}
	single, index := filepath.Join(dir, SingleFile), filepath.Join(dir, IndexFile)
	var err error
	switch {
	case exists(single):
		err = c.openShards([]string{SingleFile}, nil)
	case exists(index):
		err = c.openIndex(index)
	default:
		err = noWeights(dir)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// noWeights says what there is in place of what is looked for.
func noWeights(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var found []string
	for _, e := range entries {
		for _, pattern := range []string{"*.bin", "*.bin.index.json", "*.gguf", "*.pth", "*.pt", "*.ckpt", "*.h5", "*.msgpack", "*.safetensors", "*.safetensors.index.json"} {
			if ok, _ := filepath.Match(pattern, e.Name()); ok {
				found = append(found, e.Name())
				break
			}
		}
	}
	missing := fmt.Errorf("%s: neither %s nor %s: %w", dir, SingleFile, IndexFile, fs.ErrNotExist)
	if len(found) == 0 {
		return missing
	}
	return fmt.Errorf("%w; found %s, which cannot be read: only safetensors under these names can", missing, list(found))
}

// openIndex reads the index and opens the shards it names.
func (c *Checkpoint) openIndex(path string) error {
	o, err := strictjson.ReadObject(path, maxIndex)
	if err != nil {
		return err
	}
	c.index = o
	want, err := parseIndex(o)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	files := slices.Sorted(maps.Keys(want))
	return c.openShards(files, want)
}

// parseIndex returns the tensors that each file should hold, in the order of the index.
func parseIndex(o *strictjson.Object) (map[string][]string, error) {
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
			errs = append(errs, fmt.Errorf("weight_map: %q: want a file name, got %s", name, strictjson.Kind(v)))
			continue
		}
		if err := checkFileName(file); err != nil && !bad[file] {
			bad[file] = true
			errs = append(errs, fmt.Errorf("weight_map: %q: %w", name, err))
		}
		want[file] = append(want[file], name)
	}
	return want, errors.Join(errs...)
}

// checkFileName lets an index name only files that lie beside it.
func checkFileName(file string) error {
	switch {
	case file == "" || file == "." || file == ".." || strings.ContainsAny(file, "/\\:\x00") || !filepath.IsLocal(file):
		return fmt.Errorf("%q is not a plain file name", file)
	case !strings.HasSuffix(file, ".safetensors"):
		return fmt.Errorf("%q is not a safetensors file", file)
	}
	return nil
}

// openShards opens files, which should hold the tensors in want (nil: whatever they hold). It closes what it opened
// if anything is wrong.
func (c *Checkpoint) openShards(files []string, want map[string][]string) error {
	var errs []error
	for _, file := range files {
		path := filepath.Join(c.dir, file)
		s, err := safetensors.Open(path)
		if errors.Is(err, fs.ErrNotExist) && want != nil {
			err = fmt.Errorf("%s is missing; %s says that it holds %s", path, IndexFile, list(want[file]))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.shards = append(c.shards, s)
		errs = append(errs, missingTensors(s, want[file]))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, c.Close())
	}
	if err := c.collect(owners(want)); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

func missingTensors(s *safetensors.File, want []string) error {
	var missing []string
	for _, name := range want {
		if _, ok := s.Tensor(name); !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s does not hold %s, though %s says so", s.Path(), list(missing), IndexFile)
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
func (c *Checkpoint) collect(owner map[string]string) error {
	var errs []error
	for _, s := range c.shards {
		file := filepath.Base(s.Path())
		for t := range s.All() {
			if o, ok := owner[t.Name]; ok && o != file {
				continue
			}
			if i, ok := c.byName[t.Name]; ok {
				errs = append(errs, fmt.Errorf("%s: tensor %s is in %s too, and %s does not say which counts",
					s.Path(), t.Name, c.tensors[i].File, IndexFile))
				continue
			}
			c.byName[t.Name] = len(c.tensors)
			c.tensors = append(c.tensors, Tensor{t.Name, t.DType, t.Type, t.Shape, t.Data, s.Path()})
		}
	}
	return errors.Join(errs...)
}

// Dir returns the directory as it was given to Open.
func (c *Checkpoint) Dir() string { return c.dir }

// Files returns the paths of the shards.
func (c *Checkpoint) Files() []string {
	files := make([]string, len(c.shards))
	for i, s := range c.shards {
		files[i] = s.Path()
	}
	return files
}

// Names returns the tensors' names in the order of the files.
func (c *Checkpoint) Names() []string {
	names := make([]string, len(c.tensors))
	for i := range c.tensors {
		names[i] = c.tensors[i].Name
	}
	return names
}

// All yields the tensors in the order of the files.
func (c *Checkpoint) All() iter.Seq[Tensor] { return slices.Values(c.tensors) }

// Tensor returns the tensor called name.
func (c *Checkpoint) Tensor(name string) (Tensor, bool) {
	i, ok := c.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return c.tensors[i], true
}

// Bytes is the size of all tensors.
func (c *Checkpoint) Bytes() int64 {
	var n int64
	for i := range c.tensors {
		n += int64(len(c.tensors[i].Data))
	}
	return n
}

// Close unmaps the files. The tensors' Data must not be touched afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, s := range c.shards {
		errs = append(errs, s.Close())
	}
	c.shards, c.tensors, c.byName = nil, nil, nil
	return errors.Join(errs...)
}

// list writes up to three names and the number of the others.
func list(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
