package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("the message lacks %q: %v", p, err)
		}
	}
}

func TestOverwriteReplacesOnlyItsOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	o := &output{path: dir}
	if err := o.check(); err != nil {
		t.Fatal(err)
	}
	if err := o.claim(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir, "adapter_config.json"), "{}")
	mustWrite(t, filepath.Join(dir, "best", "adapter_config.json"), "{}")
	mustWrite(t, filepath.Join(dir, "notes.txt"), "mine")
	mustWrite(t, filepath.Join(dir, "best", "notes.txt"), "mine")

	wantError(t, (&output{path: dir}).check(), "not empty", "--overwrite")
	again := &output{path: dir, overwrite: true}
	if err := again.check(); err != nil {
		t.Fatal(err)
	}
	if err := again.claim(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"adapter_config.json": false, "best/adapter_config.json": false, "notes.txt": true, "best/notes.txt": true, manifestName: true,
	} {
		if got := exists(filepath.Join(dir, name)); got != want {
			t.Errorf("%s exists: %v, want %v", name, got, want)
		}
	}
	again.undo()
	for _, name := range []string{"adapter_config.json", "best/adapter_config.json", "notes.txt", "best/notes.txt", manifestName} {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("undo did not bring %s back", name)
		}
	}
	last := &output{path: dir, overwrite: true}
	if err := last.claim(); err != nil {
		t.Fatal(err)
	}
	if err := last.settle(); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(dir, "adapter_config.json")) || exists(filepath.Join(dir, asideDir)) || !exists(filepath.Join(dir, "notes.txt")) {
		t.Error("settle took too little or too much")
	}
}

// A run that is killed between claim and settle leaves the earlier run's files aside: the next one finds them.
func TestKilledRun(t *testing.T) {
	dir := t.TempDir()
	claim := func() *output {
		o := &output{path: dir, overwrite: true}
		if err := o.claim(); err != nil {
			t.Fatal(err)
		}
		return o
	}
	claim()
	mustWrite(t, filepath.Join(dir, "best", "README.md"), "first")
	claim() // killed
	claim().undo()
	if text, err := os.ReadFile(filepath.Join(dir, "best", "README.md")); err != nil || string(text) != "first" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestForeignFilesAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "adapter_config.json"), "mine")
	mustWrite(t, filepath.Join(dir, "notes.txt"), "mine")
	mustWrite(t, filepath.Join(dir, manifestName), "../../etc\nnotes.txt\n.lora-train\n")
	o := &output{path: dir, overwrite: true}
	wantError(t, o.check(), "adapter_config.json", "not written by lora-train")
	wantError(t, o.claim(), "adapter_config.json")
	for _, name := range []string{"adapter_config.json", "notes.txt"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != "mine" {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// The card of an adapter is the one file that may be somebody else's: it stays.
func TestForeignCardStays(t *testing.T) {
	dir := t.TempDir()
	card := filepath.Join(dir, "README.md")
	mustWrite(t, card, "mine")
	for range 2 {
		o := &output{path: dir, overwrite: true}
		if err := o.claim(); err != nil {
			t.Fatal(err)
		}
		o.undo()
		if err := o.claim(); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(card); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestInputsAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := (&output{path: dir}).claim(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "adapter_config.json")
	mustWrite(t, config, "{}")
	o := &output{path: dir, overwrite: true}
	wantError(t, o.check(config), "is read by this run")
	if err := o.check(filepath.Join(dir, "adapter_model.safetensors"), dir); err != nil {
		t.Errorf("files that are not there are in nobody's way: %v", err)
	}
}

func TestNumberedOutputs(t *testing.T) {
	t.Chdir(t.TempDir())
	mustWrite(t, "lora-out/7/x", "")
	mustWrite(t, "lora-out/note", "")
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[string]bool{}
	for range 8 {
		wg.Go(func() {
			o := &output{}
			if err := o.claim(); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[o.path] {
				t.Errorf("%s was given twice", o.path)
			}
			seen[o.path] = true
		})
	}
	wg.Wait()
	if !seen[filepath.Join("lora-out", "8")] || !seen[filepath.Join("lora-out", "15")] {
		t.Errorf("got %v, want 8 to 15", seen)
	}
}

// Of several runs that start in one directory at once, one gets it, and the others leave its files alone.
func TestOneDirectoryForOneRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			o := &output{path: dir}
			if o.claim() == nil {
				wins.Add(1)
				return
			}
			o.undo()
		})
	}
	wg.Wait()
	if wins.Load() != 1 || !exists(filepath.Join(dir, manifestName)) {
		t.Errorf("%d runs have the directory", wins.Load())
	}
}

func TestUndoLeavesNothing(t *testing.T) {
	root := t.TempDir()
	o := &output{path: filepath.Join(root, "a", "b")}
	if err := o.claim(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(o.path, "best", "README.md"), "")
	o.undo()
	if exists(filepath.Join(root, "a")) {
		t.Error("directories are left")
	}
	full := &output{path: filepath.Join(root, "c")}
	if err := full.claim(); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(full.path, "mine"), "")
	full.undo()
	if !exists(filepath.Join(full.path, "mine")) {
		t.Error("undo took a foreign file")
	}
}

func TestOutputsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	mustWrite(t, file, "")
	wantError(t, (&output{path: file}).check(), "file")
	wantError(t, (&output{path: filepath.Join(file, "x")}).check(), "file")
	if runtime.GOOS == "linux" {
		wantError(t, (&output{path: "/proc/lora-train/x"}).check(), "cannot write")
	}
	if os.Getuid() != 0 {
		locked := filepath.Join(dir, "locked")
		if err := os.Mkdir(locked, 0o555); err != nil {
			t.Fatal(err)
		}
		wantError(t, (&output{path: filepath.Join(locked, "x")}).check(), "cannot write", "permission denied")
	}
}
