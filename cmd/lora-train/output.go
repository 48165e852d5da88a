package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/train"
)

// manifestName is the file that lists what lora-train wrote into an output directory.
const manifestName = ".lora-train"

const manifestHead = "# What lora-train wrote here. --overwrite replaces these files and nothing else.\n"

// The files of an output directory.
const (
	runName = "run.yaml"
	logName = "log.txt" // what is printed of the run
)

var adapterNames = []string{"adapter_config.json", "adapter_model.safetensors", "README.md"}

// outputNames are all files that a run may write, as slash-separated paths in the output directory. What a manifest
// lists beside them is never touched.
func outputNames() []string {
	names := []string{manifestName, runName, logName, train.EventsFile}
	for _, n := range adapterNames {
		names = append(names, n, train.BestDir+"/"+n)
	}
	return append(names, demoNames()...)
}

// output is the directory of one run.
type output struct {
	path      string // empty until claim where it is to be numbered
	overwrite bool
	names     []string // the files that this run may write, once claimed
	made      []string // directories that claim made, the outermost first
	claimed   bool
}

// outputRoot is where runs without --out go.
const outputRoot = "lora-out"

// check says why a run could not write here, before anything is changed. Inputs are the files that the run reads.
func (o *output) check(inputs ...string) error {
	if o.path == "" {
		return checkWritable(outputRoot)
	}
	entries, err := os.ReadDir(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return checkWritable(o.path)
	}
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if len(entries) == 0 {
		return checkWritable(o.path)
	}
	if !o.overwrite {
		return fmt.Errorf("output directory %s is not empty (%d entries, the first is %s): name another --out, or give --overwrite, "+
			"which replaces only what lora-train wrote", o.path, len(entries), entries[0].Name())
	}
	owned, err := o.owned()
	if err != nil {
		return err
	}
	errs := []error{checkWritable(o.path), o.foreign(owned)}
	for _, in := range inputs {
		if name := o.holds(owned, in); name != "" {
			errs = append(errs, fmt.Errorf("%s is read by this run, and --overwrite would replace %s: name another --out",
				in, filepath.Join(o.path, name)))
		}
	}
	return errors.Join(errs...)
}

// checkWritable tries to write where the directory is, or where it is to be made.
func checkWritable(dir string) error {
	for {
		st, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("output directory: %w", err)
		}
		if !st.IsDir() {
			return fmt.Errorf("output directory: %s is not a directory", dir)
		}
		break
	}
	probe, err := os.MkdirTemp(dir, ".lora-train-*")
	if err != nil {
		return fmt.Errorf("output directory: cannot write to %s: %w", dir, err)
	}
	return os.Remove(probe)
}

// owned returns the files in the directory that an earlier run wrote.
func (o *output) owned() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(o.path, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	listed := strings.Split(string(text), "\n")
	var owned []string
	for _, name := range outputNames() {
		if slices.Contains(listed, name) {
			owned = append(owned, name)
		}
	}
	return owned, nil
}

// foreign complains of files that the run would write and that are somebody else's.
func (o *output) foreign(owned []string) error {
	var errs []error
	for _, name := range outputNames() {
		path := filepath.Join(o.path, filepath.FromSlash(name))
		if !isCard(name) && exists(path) && !slices.Contains(owned, name) {
			errs = append(errs, fmt.Errorf("%s is in the way and was not written by lora-train: move it, or name another --out", path))
		}
	}
	return errors.Join(errs...)
}

// isCard tells the adapter's card. Package lora lets one stay that somebody else wrote.
func isCard(name string) bool { return strings.HasSuffix(name, "README.md") }

// holds returns the owned file that an input is, or "".
func (o *output) holds(owned []string, input string) string {
	in, err := os.Stat(input)
	if err != nil {
		return ""
	}
	for _, name := range owned {
		st, err := os.Stat(filepath.Join(o.path, filepath.FromSlash(name)))
		if err == nil && os.SameFile(in, st) {
			return name
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// claim makes the directory, sets aside what an earlier run wrote, and lists what this one may write. With no path
// given, the directory is a new one below outputRoot. Either settle or undo follows.
func (o *output) claim() error {
	if err := o.mkdir(); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	o.claimed = true
	if err := o.check(); err != nil { // again: another run may have come between
		o.claimed = false
		return err
	}
	if o.overwrite {
		if err := o.setAside(); err != nil {
			return fmt.Errorf("output directory: %w", err)
		}
	}
	o.names = nil
	for _, name := range outputNames() {
		if !exists(filepath.Join(o.path, filepath.FromSlash(name))) { // a card that stays
			o.names = append(o.names, name)
		}
	}
	return o.writeManifest()
}

// writeManifest lists what this run may write. The file is new: where two runs start in one directory at the same
// moment, one of them finds it there and leaves.
func (o *output) writeManifest() error {
	f, err := os.OpenFile(filepath.Join(o.path, manifestName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		o.claimed = false
		return fmt.Errorf("output directory %s: another run has just begun to write there: %w", o.path, err)
	}
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if _, err = f.WriteString(manifestHead + strings.Join(o.names, "\n") + "\n"); err != nil {
		f.Close()
		return fmt.Errorf("output directory: %w", err)
	}
	return f.Close()
}

// seal leaves in the list only what the run wrote indeed.
func (o *output) seal() error {
	var names []string
	for _, name := range o.names {
		if exists(filepath.Join(o.path, filepath.FromSlash(name))) {
			names = append(names, name)
		}
	}
	return o.write(manifestName, []byte(manifestHead+strings.Join(names, "\n")+"\n"))
}

// mkdir makes the directory and notes what it made.
func (o *output) mkdir() error {
	if o.path != "" {
		return o.mkdirAll(o.path)
	}
	if err := o.mkdirAll(outputRoot); err != nil {
		return err
	}
	for {
		n, err := lastNumber(outputRoot)
		if err != nil {
			return err
		}
		path := filepath.Join(outputRoot, strconv.Itoa(n+1))
		if err = os.Mkdir(path, 0o777); errors.Is(err, fs.ErrExist) {
			continue // another run was faster
		}
		if err != nil {
			return err
		}
		o.path = path
		o.made = append(o.made, path)
		return nil
	}
}

func (o *output) mkdirAll(dir string) error {
	if exists(dir) {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := o.mkdirAll(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		o.made = append(o.made, dir)
	}
	return err
}

// lastNumber returns the largest number that is a name in dir, or 0.
func lastNumber(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	last := 0
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
	}
	return last, nil
}

// write writes a file of the run, whole or not at all.
func (o *output) write(name string, text []byte) error {
	path := filepath.Join(o.path, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	err := atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	return nil
}

// asideDir holds what an earlier run wrote until this one has something of its own.
const asideDir = ".lora-train-old"

// setAside moves the files of an earlier run.
func (o *output) setAside() error {
	if err := o.bringBack(); err != nil { // of a run that was killed
		return err
	}
	owned, err := o.owned()
	if err != nil {
		return err
	}
	return o.move(owned, o.path, filepath.Join(o.path, asideDir))
}

func (o *output) bringBack() error {
	aside := filepath.Join(o.path, asideDir)
	if !exists(aside) {
		return nil
	}
	return o.move(outputNames(), aside, o.path)
}

// move moves those of the files that there are, and removes the directories that it empties.
func (o *output) move(names []string, from, to string) error {
	for _, name := range names {
		name = filepath.FromSlash(name)
		if !exists(filepath.Join(from, name)) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o777); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	removeEmpty(from)
	if filepath.Base(from) == asideDir {
		os.Remove(from)
	}
	return nil
}

// settle removes what was set aside.
func (o *output) settle() error {
	aside := filepath.Join(o.path, asideDir)
	for _, name := range outputNames() {
		if err := os.Remove(filepath.Join(aside, filepath.FromSlash(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("output directory: %w", err)
		}
	}
	removeEmpty(aside)
	os.Remove(aside)
	return nil
}

// undo removes what the run wrote, where it ended before it had anything to leave, and brings back what was there.
func (o *output) undo() {
	if !o.claimed {
		return
	}
	o.claimed = false
	for _, name := range o.names {
		os.Remove(filepath.Join(o.path, filepath.FromSlash(name)))
	}
	removeEmpty(o.path)
	o.bringBack()
	for _, dir := range slices.Backward(o.made) {
		os.Remove(dir)
	}
}

// removeEmpty removes the directories of a run's files in dir that are empty.
func removeEmpty(dir string) {
	for _, name := range slices.Backward(outputNames()) {
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			os.Remove(filepath.Join(dir, filepath.FromSlash(d))) // fails on a directory with something in it
		}
	}
}
