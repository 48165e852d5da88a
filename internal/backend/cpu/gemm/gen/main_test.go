package main

import (
	"bytes"
	"os"
	"testing"
)

// The files in the package must be what the generator writes.
func TestFilesAreCurrent(t *testing.T) {
	for arch, generate := range architectures {
		code, decl, err := generate()
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

// The bytes that the GNU assembler writes for the same instructions.
func TestEVEX(t *testing.T) {
	for _, c := range []struct {
		op                      byte
		prefix, dst, src1, src2 int
		want                    string
	}{
		{0x52, 2, 0, 30, 28, "LONG $0x400e9262; WORD $0xc452"},
		{0x52, 2, 27, 31, 29, "LONG $0x40060262; WORD $0xdd52"},
		{0x52, 2, 17, 9, 3, "LONG $0x4836e262; WORD $0xcb52"},
		{0x72, 3, 15, 31, 30, "LONG $0x40071262; WORD $0xfe72"},
		{0x72, 3, 1, 29, 28, "LONG $0x40179262; WORD $0xcc72"},
	} {
		if got := evex(c.op, c.prefix, c.dst, c.src1, c.src2); got != c.want {
			t.Errorf("%#x Z%d, Z%d, Z%d: %s, want %s", c.op, c.src2, c.src1, c.dst, got, c.want)
		}
	}
}
