package main

import (
	"bytes"
	"os"
	"testing"
)

// The files in the package must be what the generator writes.
func TestFilesAreCurrent(t *testing.T) {
	for arch, sets := range architectures {
		code, decl, err := generate(sets)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]byte{"../gen_" + arch + ".s": code, "../gen_" + arch + ".go": decl} {
			got, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what go generate writes", name)
			}
		}
	}
}
