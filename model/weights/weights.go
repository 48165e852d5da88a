// Package weights opens a checkpoint in any of the forms that LLaMA models come in, as named tensors that stay in their
// files until they are used, and writes a changed copy in Hugging Face's form.
//
// The forms are safetensors and PyTorch's .bin (one file, or shards with an index), Meta's consolidated.*.pth with
// params.json, and GGUF. Whatever the form, the tensors have the names, shapes and orders of rows and columns that
// Hugging Face gives them. Opening costs neither time nor memory for the data. What does not lie in a file as it is
// computed with (columns in several shards, rows in Meta's rotary order, quantised blocks, float64) can be read at any
// time; Prepare converts it once, so that it can be used in place. It also quantises matrices.
package weights

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// Tensor is one tensor of a checkpoint.
type Tensor struct {
	Name  string
	DType numeric.DType // of the values; numeric.Invalid where package numeric has no such format or it cannot be read
	Type  string        // the format as the file names it: "BF16", "F8_E4M3", "Q4_K"
	Shape []int         // empty for a scalar
	// Data is the values in the format DType, row-major, little-endian; mapped, possibly unaligned; not to be written
	// to. It is nil for values that do not lie so in the file, until Prepare has converted them.
	Data []byte
	File string // the path of the file that holds it, or the first part of it

	// Quant is the format of Codes, which Prepare has made of the matrix for products with it: what quant.Encode writes.
	// The values are what the codes stand for then, in float32, and Data is nil.
	Quant quant.Format
	Codes []byte

	layout layout // gives the values where Data does not; nil if nothing but Data can
	blocks bool   // the file has blocks of fewer bits, which the values are decoded from
	stored int64  // bytes in the files
}

// Bytes is what the tensor takes in the checkpoint's files.
func (t Tensor) Bytes() int64 { return t.stored }

// Checkpoint is an open checkpoint. It may be used by several goroutines at once, but for Prepare and Close.
type Checkpoint struct {
	path, dir string
	format    string
	files     []string
	open      []openFile // the files, and that of converted tensors
	tensors   []Tensor
	byName    map[string]int
	shards    []*safetensors.File // of a checkpoint in Hugging Face's form, for Rewrite
	index     *strictjson.Object  // nil without an index file
	config    func() (*strictjson.Object, string, error)
	warnings  []string
	caches    []string // the paths of the files that Prepare made or found
	verified  int      // of these, how many were found, and compared with all that they were made of
	held      int64    // bytes of tensors in memory, not in files
}

// openFile is a file that is mapped.
type openFile interface {
	io.Closer
	Unchanged() error
}

// The forms of checkpoints.
const (
	Safetensors = "safetensors"
	Pickle      = "pickle"
	Meta        = "meta"
	GGUF        = "gguf"
)

// Format is the form that the checkpoint has on the disk: "safetensors", "pickle", "meta" or "gguf".
func (c *Checkpoint) Format() string { return c.format }

// Path returns what was given to Open.
func (c *Checkpoint) Path() string { return c.path }

// Dir returns the directory of the files.
func (c *Checkpoint) Dir() string { return c.dir }

// Files returns the paths of the files with weights.
func (c *Checkpoint) Files() []string { return slices.Clone(c.files) }

// Caches returns the paths of the files with converted and with quantised tensors that are in use since Prepare.
func (c *Checkpoint) Caches() []string { return slices.Clone(c.caches) }

// Verified reports whether these files were found and are, byte by byte, what would be made now: see
// PrepareOptions.Verify.
func (c *Checkpoint) Verified() bool { return c.verified > 0 && c.verified == len(c.caches) }

// Held is how many bytes of tensors are in memory: made by Prepare, or all of them (InMemory).
func (c *Checkpoint) Held() int64 { return c.held }

// Config returns what config.json says of the model, and the path that it was read from. Where that is params.json or
// the metadata of a GGUF file, it is translated into Hugging Face's names.
func (c *Checkpoint) Config() (*strictjson.Object, string, error) { return c.config() }

// Warnings tells what of params.json or of a GGUF file's metadata is not understood and was passed over, and what was
// wrong with a file of converted tensors.
func (c *Checkpoint) Warnings() []string { return c.warnings }

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

// Bytes is the size of all tensors in the files.
func (c *Checkpoint) Bytes() int64 {
	var n int64
	for i := range c.tensors {
		n += c.tensors[i].stored
	}
	return n
}

// Close unmaps the files. The tensors must not be used afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, s := range c.open {
		errs = append(errs, s.Close())
	}
	c.open, c.shards, c.tensors, c.byName = nil, nil, nil, nil
	return errors.Join(errs...)
}

// add lists a tensor. Names must be unique.
func (c *Checkpoint) add(t Tensor) error {
	if i, ok := c.byName[t.Name]; ok {
		return fmt.Errorf("%s: tensor %s is in %s too", t.File, printable(t.Name), c.tensors[i].File)
	}
	c.byName[t.Name] = len(c.tensors)
	c.tensors = append(c.tensors, t)
	return nil
}

// warn tells of keys that mean nothing here.
func (c *Checkpoint) warn(path string, keys []string) {
	if len(keys) > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%s: unknown keys, ignored: %s", path, list(keys)))
	}
}

// printable keeps a name from a stranger's file from the terminal, and short.
func printable(s string) string {
	q := quoted(s)
	return q[1 : len(q)-1]
}

// quoted is printable in quotation marks.
func quoted(s string) string {
	if len(s) > 120 {
		s = s[:120] + "..."
	}
	return strconv.Quote(s)
}

// list writes up to three names and the number of the others.
func list(names []string) string {
	const most = 3
	var out []string
	for _, n := range names[:min(len(names), most)] {
		out = append(out, printable(n))
	}
	if len(names) <= most {
		return strings.Join(out, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(out, ", "), len(names)-most)
}

// join is errors.Join for lists that a stranger's file makes long.
func join(errs []error) error {
	const most = 20
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > most {
		errs = append(errs[:most:most], fmt.Errorf("and %d more problems", len(errs)-most))
	}
	return errors.Join(errs...)
}
