//go:build linux && (amd64 || arm64) && !nocuda

package driver

import (
	"os"
	"slices"
	"testing"
)

// The loader's come first, then what the toolkit has, the newest first.
func TestLtCandidates(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"11", "12"} {
		if err := os.WriteFile(dir+"/libcublasLt.so."+version, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := append(slices.Clone(ltNames), dir+"/libcublasLt.so.12", dir+"/libcublasLt.so.11")
	if got := ltCandidates(dir); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
