package main

import (
	"strings"
	"testing"
)

// The bytes that the GNU assembler writes for the same instructions.
func TestTileInstructions(t *testing.T) {
	for _, c := range []struct {
		write func(a *assembler)
		want  string
	}{
		{(*assembler).tileConfigure, "c4 e2 78 49 01"},
		{(*assembler).tileRelease, "c4 e2 78 49 c0"},
		{func(a *assembler) { a.tileZero(3) }, "c4 e2 7b 49 d8"},
		{func(a *assembler) { a.tileLoad(false, 6, "BX", 0, 1) }, "c4 a2 7b 4b 34 4b"},
		{func(a *assembler) { a.tileLoad(false, 7, "BX", 64, 1) }, "c4 a2 7b 4b 7c 4b 40"},
		{func(a *assembler) { a.tileLoad(true, 4, "SI", 0, 0) }, "c4 a2 79 4b 24 0e"},
		{func(a *assembler) { a.tileLoad(true, 5, "SI", 1024, 0) }, "c4 a2 79 4b ac 0e 00 04 00 00"},
		{func(a *assembler) { a.tileStore(0, "R11", 0, 1) }, "c4 82 7a 4b 04 4b"},
		{func(a *assembler) { a.tileStore(3, "R11", 0x840, 1) }, "c4 82 7a 4b 9c 4b 40 08 00 00"},
		{func(a *assembler) { a.tileDot(6, 4, 0) }, "c4 e2 4a 5c c4"},
		{func(a *assembler) { a.tileDot(7, 5, 3) }, "c4 e2 42 5c dd"},
	} {
		var a assembler
		c.write(&a)
		lines := strings.Split(strings.TrimSpace(a.code.String()), "\n")
		code, comment, _ := strings.Cut(lines[len(lines)-1], " // ")
		if got := bytesOf(code); got != c.want {
			t.Errorf("%s: %s, want %s", comment, got, c.want)
		}
	}
}

// bytesOf returns what directives write, in order.
func bytesOf(code string) string {
	var all []string
	for _, d := range strings.Split(strings.TrimSpace(code), "; ") {
		_, digits, _ := strings.Cut(d, "$0x")
		for ; digits != ""; digits = digits[:len(digits)-2] {
			all = append(all, digits[len(digits)-2:])
		}
	}
	return strings.Join(all, " ")
}
