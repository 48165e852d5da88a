package pickle

import (
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/hostile"
)

// perByte is how much memory a byte of a pickle can take, as the package promises.
const perByte = 400

// What running a pickle takes is a multiple of its length, whatever it is made of.
func TestAllocation(t *testing.T) {
	const n = 100_000
	var memo, items strings.Builder
	for i := range n {
		index := string([]byte{byte(i), byte(i >> 8), byte(i >> 16), 0})
		memo.WriteString("r" + index)
		items.WriteString("J" + index + "Ns")
	}
	rep := func(head, body string) string { return head + strings.Repeat(body, n) + "." }
	const ordered = "ccollections\nOrderedDict\n"
	for name, program := range map[string]string{
		"marks": rep("\x80\x02", "("), "lists": rep("\x80\x02", "]"), "tuples": rep("\x80\x02", ")"),
		"dictionaries": rep("\x80\x02", "}"), "sets": rep("\x80\x04", "\x8f"), "ordered dictionaries": rep(ordered+"q\x00", "h\x00)R"),
		"copies": rep("N", "2"), "numbers": rep("N", "M\xff\xff"), "strings": rep("N", "\x8c\x01a"), "long numbers": rep("N", "\x8a\x09123456789"),
		"memo": "N" + memo.String() + ".", "items": "}" + items.String() + ".", "items in order": ordered + ")R" + items.String() + ".",
		"appends": rep("]", "Na"), "frames": rep("\x80\x04", "\x95\x01\x00\x00\x00\x00\x00\x00\x00N"),
		"frame in a frame": rep("\x80\x04\x95\x00\x00\x01\x00\x00\x00\x00\x00", "\x95\x00\x00\x01\x00\x00\x00\x00\x00"),
		"long keys":        rep(ordered+")R\x8d\x00\x40\x00\x00\x00\x00\x00\x00"+strings.Repeat("x", maxString)+"q\x000", "h\x00Ns"),
		// A storage that a message would spell out.
		"a storage that is called": "((S'storage'\nctorch\nByteStorage\nS'0'\nS'cpu'\nI" + "1000000\ntQ)R.",
	} {
		data := pack(t, program, map[string]string{"data/0": strings.Repeat("x", 1000000)})
		t.Run(name, func(t *testing.T) {
			hostile.Bounded(t, len(program), perByte, func() { Parse(data, "x") })
		})
	}
}
