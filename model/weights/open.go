package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/internal/pickle"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/internal/strictjson"
)

// The names of the files of a checkpoint.
const (
	SingleFile  = "model.safetensors"
	IndexFile   = "model.safetensors.index.json"
	PickleFile  = "pytorch_model.bin"
	PickleIndex = "pytorch_model.bin.index.json"
	ConfigFile  = "config.json"
	ParamsFile  = "params.json"
)

const maxConfig = 16 << 20 // bytes of a JSON file

// Open maps the weights at path, which is a directory or a .gguf file. In a directory the first of these counts:
// model.safetensors or its index, pytorch_model.bin or its index, Meta's consolidated files with params.json, a .gguf
// file. It takes neither time nor memory for the data. A problem with the files is reported for all of them at once.
func Open(path string) (*Checkpoint, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, explainMissing(path, err)
	}
	c := &Checkpoint{path: path, dir: path, byName: map[string]int{}}
	switch {
	case info.IsDir():
		err = c.openDir()
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is neither a directory nor a regular file", path)
	case isGGUF(path):
		c.dir = filepath.Dir(path)
		err = c.openGGUF(filepath.Base(path))
	default:
		err = fmt.Errorf("%s is a file: name the directory of the checkpoint, or a .gguf file", path)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// isGGUF looks at the name and at the first bytes.
func isGGUF(path string) bool {
	if strings.EqualFold(filepath.Ext(path), ".gguf") {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && bytes.Equal(magic[:], []byte("GGUF"))
}

// explainMissing tells a symbolic link that leads nowhere from a name that is not there.
func explainMissing(path string, err error) error {
	if to, linkErr := os.Readlink(path); linkErr == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is a symbolic link to %s, which is not there: %w", path, printable(to), fs.ErrNotExist)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// openDir opens what there is in the directory.
func (c *Checkpoint) openDir() error {
	c.config = c.readConfig
	for _, f := range []struct {
		name, form string
		open       func(name string) error
	}{
		{SingleFile, Safetensors, c.openSingle}, {IndexFile, Safetensors, c.openIndex},
		{PickleFile, Pickle, c.openSingle}, {PickleIndex, Pickle, c.openIndex},
	} {
		if exists(filepath.Join(c.dir, f.name)) {
			c.format = f.form
			return f.open(f.name)
		}
	}
	names, err := regularNames(c.dir)
	if err != nil {
		return err
	}
	meta, err := metaFiles(names)
	if err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	if meta.any() {
		return c.openMeta(meta)
	}
	gguf, err := ggufFile(names)
	if err != nil {
		return fmt.Errorf("%s: %w", c.dir, err)
	}
	if gguf != "" {
		return c.openGGUF(gguf)
	}
	return noWeights(c.dir, names)
}

// regularNames lists what is in dir but for directories.
func regularNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// noWeights says what there is in place of what is looked for.
func noWeights(dir string, names []string) error {
	var found, partial []string
	for _, name := range names {
		if slices.Contains([]string{".incomplete", ".part", ".partial", ".crdownload", ".aria2"}, filepath.Ext(name)) {
			partial = append(partial, name)
		}
		if slices.ContainsFunc([]string{"*.bin", "*.pth", "*.pt", "*.ckpt", "*.h5", "*.msgpack", "*.safetensors", "*.index.json", "*.onnx"},
			func(pattern string) bool { ok, _ := filepath.Match(pattern, name); return ok }) {
			found = append(found, name)
		}
	}
	err := fmt.Errorf("%s: %w", dir, errNoWeights)
	if len(partial) > 0 {
		err = fmt.Errorf("%w; found %s: a download that has not ended", err, list(partial))
	}
	if len(found) > 0 {
		err = fmt.Errorf("%w; found %s, which is not read under such a name", err, list(found))
	}
	return err
}

// readConfig reads config.json.
func (c *Checkpoint) readConfig() (*strictjson.Object, string, error) {
	path := filepath.Join(c.dir, ConfigFile)
	o, err := strictjson.ReadObject(path, maxConfig)
	return o, path, err
}

// ReadConfig is Checkpoint.Config. It opens the weights only where the configuration is made of them.
func ReadConfig(path string) (*strictjson.Object, string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", explainMissing(path, err)
	}
	c := &Checkpoint{dir: path}
	if info.IsDir() && exists(filepath.Join(path, ConfigFile)) {
		return c.readConfig()
	}
	full, err := Open(path)
	if errors.Is(err, errNoWeights) {
		return c.readConfig() // that is missing too, and is what was asked for
	}
	if err != nil {
		return nil, "", err
	}
	defer full.Close()
	return full.Config()
}

// errNoWeights says that a directory has nothing that is taken for weights.
var errNoWeights = fmt.Errorf("no weights: neither %s nor %s, each in one file or with an index, nor Meta's consolidated files, nor a .gguf file: %w",
	SingleFile, PickleFile, fs.ErrNotExist)

// shard is an open file of a checkpoint.
type shard struct {
	path    string
	tensors []Tensor
	byName  map[string]int
	safe    *safetensors.File // nil for other formats
	openFile
}

// openShard opens a safetensors file, or else one of PyTorch's.
func openShard(path string) (*shard, error) {
	s := &shard{path: path}
	var err error
	if strings.HasSuffix(path, ".safetensors") {
		err = s.openSafetensors()
	} else {
		err = s.openPickle()
	}
	if err != nil {
		return nil, explainMissing(path, err)
	}
	s.byName = make(map[string]int, len(s.tensors))
	for i, t := range s.tensors {
		s.byName[t.Name] = i
	}
	return s, nil
}

func (s *shard) tensor(name string) (Tensor, bool) {
	i, ok := s.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return s.tensors[i], true
}

func (s *shard) openSafetensors() error {
	f, err := safetensors.Open(s.path)
	if err != nil {
		return err
	}
	s.safe, s.openFile = f, f
	for t := range f.All() {
		s.tensors = append(s.tensors, Tensor{Name: t.Name, DType: t.DType, Type: t.Type, Shape: t.Shape, Data: t.Data,
			File: s.path, stored: int64(len(t.Data))})
	}
	return nil
}

func (s *shard) openPickle() error {
	f, err := pickle.Open(s.path)
	if err != nil {
		return err
	}
	s.openFile = f
	for _, name := range f.Names() {
		v, _ := f.View(name)
		s.tensors = append(s.tensors, pickled(name, s.path, v))
	}
	return nil
}

// pickled makes a tensor of a view, which may repeat no element and skip some.
func pickled(name, path string, v pickle.View) Tensor {
	t := Tensor{Name: name, DType: v.DType, Type: v.DType.String(), Shape: v.Shape, File: path}
	t.stored = int64(t.Len() * v.DType.Size())
	l := newStrided(v.Data, v.DType.Size(), v.Shape, v.Stride)
	if l.contiguous() {
		t.Data = v.Data
	} else {
		t.layout = l
	}
	return t
}

// take makes a shard part of the checkpoint.
func (c *Checkpoint) take(s *shard) {
	c.files = append(c.files, s.path)
	c.open = append(c.open, s)
	if s.safe != nil {
		c.shards = append(c.shards, s.safe)
	}
}

// openSingle opens the one file called name.
func (c *Checkpoint) openSingle(name string) error { return c.openShards([]string{name}, nil, "") }
