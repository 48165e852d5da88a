package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// charsmap is the rules for characters of a SentencePiece model ("precompiled_charsmap"): which strings are replaced by
// which. The strings are the keys of a double-array trie in the format of Darts-clone, its values are places in texts,
// where the replacement stands up to a byte 0.
type charsmap struct {
	units   []uint32
	texts   string
	longest int // bytes of the longest replacement
}

const (
	maxCharsmap = 1 << 22 // bytes; nmt_nfkc_cf, the largest that SentencePiece brings along, has 240 kB
	maxRule     = 256     // bytes of a string that is replaced, or of its replacement
)

// readCharsmap reads the rules: the size of the trie, the trie, the texts. All of the trie is looked at, so that matching
// ends soon: no way through it is long or comes back, and every value is the place of a text.
func readCharsmap(blob string) (*charsmap, error) {
	if len(blob) > maxCharsmap {
		return nil, fmt.Errorf("%d bytes, at most %d are plausible", len(blob), maxCharsmap)
	}
	if len(blob) <= 4 {
		return nil, fmt.Errorf("%d bytes are too short", len(blob))
	}
	size := binary.LittleEndian.Uint32([]byte(blob[:4]))
	if size%4 != 0 || size == 0 || uint64(size) >= uint64(len(blob)-4) {
		return nil, fmt.Errorf("the trie has %d bytes of the %d that there are; want a multiple of 4 below that", size, len(blob)-4)
	}
	c := &charsmap{units: make([]uint32, size/4), texts: blob[4+size:]}
	for i := range c.units {
		c.units[i] = binary.LittleEndian.Uint32([]byte(blob[4+4*i : 8+4*i]))
	}
	heights := make([]int16, len(c.units))
	_, err := c.check(c.offset(0), 0, heights)
	return c, err
}

// offset returns the place from which the children of a node are found: that for byte b is at offset ^ b.
func (c *charsmap) offset(node uint32) uint32 {
	u := c.units[node]
	return node ^ u>>10<<((u&(1<<9))>>6)
}

// hasValue reports whether a key ends at a node; the value is at its offset.
func (c *charsmap) hasValue(node uint32) bool { return c.units[node]>>8&1 == 1 }

// check looks at the children of a node, whose offset is given, and at theirs. It returns how many bytes the longest key
// goes on from there. Keys with the same end may share nodes: heights has 1 more than the height of those that were seen.
func (c *charsmap) check(offset uint32, depth int, heights []int16) (height int, err error) {
	for b := uint32(1); b < 256; b++ { // no key has a byte 0
		node := offset ^ b
		if uint64(node) >= uint64(len(c.units)) || c.label(node) != b {
			continue
		}
		below := int(heights[node]) - 1
		if below < 0 {
			if depth == maxRule {
				return 0, fmt.Errorf("a rule is for more than %d bytes, or the trie is none", maxRule)
			}
			if c.hasValue(node) {
				if err := c.checkValue(c.offset(node)); err != nil {
					return 0, err
				}
			}
			if below, err = c.check(c.offset(node), depth+1, heights); err != nil {
				return 0, err
			}
			heights[node] = int16(below) + 1
		}
		if height = max(height, below+1); depth+height > maxRule {
			return 0, fmt.Errorf("a rule is for more than %d bytes", maxRule)
		}
	}
	return height, nil
}

func (c *charsmap) checkValue(node uint32) error {
	if uint64(node) >= uint64(len(c.units)) {
		return errors.New("the trie has a value outside of it")
	}
	at := c.units[node] & (1<<31 - 1)
	if uint64(at) >= uint64(len(c.texts)) {
		return fmt.Errorf("a rule writes what stands at byte %d of %d", at, len(c.texts))
	}
	n := strings.IndexByte(c.texts[at:min(len(c.texts), int(at)+maxRule+1)], 0)
	if n < 0 {
		return fmt.Errorf("a rule writes more than %d bytes", maxRule)
	}
	c.longest = max(c.longest, n)
	return nil
}

// label returns the byte that leads to a node; it is no byte for a value.
func (c *charsmap) label(node uint32) uint32 { return c.units[node] & (1<<31 | 0xff) }

// match returns the replacement for the longest key that s begins with, and the key's length, 0 if there is none.
func (c *charsmap) match(s string) (text string, n int) {
	offset, value := c.offset(0), uint32(0)
	for i := 0; i < len(s) && s[i] != 0; i++ {
		node := offset ^ uint32(s[i])
		if uint64(node) >= uint64(len(c.units)) || c.label(node) != uint32(s[i]) {
			break
		}
		offset = c.offset(node)
		if c.hasValue(node) {
			value, n = c.units[offset]&(1<<31-1), i+1
		}
	}
	if n == 0 {
		return "", 0
	}
	text = c.texts[value:]
	return text[:strings.IndexByte(text, 0)], n
}
