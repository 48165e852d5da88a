package tokenizer

// Byte-level vocabularies spell each byte as a printable character: printable Latin-1 stands for itself, the other
// bytes for U+0100 and upwards in order (GPT-2's bytes_to_unicode).
var (
	byteToRune [256]rune
	runeToByte [0x100 + 68]int16 // -1 where the character stands for no byte
)

func init() {
	for i := range runeToByte {
		runeToByte[i] = -1
	}
	next := rune(0x100)
	for b := range byteToRune {
		r := rune(b)
		if !(r >= '!' && r <= '~' || r >= '¡' && r <= '¬' || r >= '®' && r <= 'ÿ') {
			r, next = next, next+1
		}
		byteToRune[b] = r
		runeToByte[r] = int16(b)
	}
}

// byteOf returns the byte that r stands for, -1 for none.
func byteOf(r rune) int {
	if r < 0 || int(r) >= len(runeToByte) {
		return -1
	}
	return int(runeToByte[r])
}
