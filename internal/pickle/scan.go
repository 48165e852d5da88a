package pickle

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Limits of a pickle that describes tensors. They bound the memory that running it can take, well above what the
// largest real checkpoints need (about 40 instructions and 8 containers a tensor).
const (
	maxProgram    = 16 << 20 // bytes
	maxOps        = 4 << 20  // instructions
	maxContainers = 1 << 19  // tuples, lists, dictionaries, marks
	maxString     = 1 << 14  // bytes of a string; each use of one as a key takes time by its length
	maxLine       = 1 << 12  // bytes of a textual argument
	maxLong       = 64       // bytes of an integer
)

// argument says what follows an instruction.
type argument uint8

const (
	unknown argument = iota
	none
	bytes1
	bytes2
	bytes4
	bytes8
	line   // up to a line feed
	lines2 // two of them
	string1
	string4
	string8 // so many bytes, their number before them
	long1
	long4
	frame // a length that more instructions follow
)

// arguments of the instructions that torch.save may write, and of others that do no harm.
var arguments = func() (t [256]argument) {
	set := func(a argument, ops string) {
		for i := range len(ops) {
			t[ops[i]] = a
		}
	}
	set(none, "(.012NQRabde})]lostu\x85\x86\x87\x88\x89\x8f\x90\x91\x81\x92\x93\x94")
	set(bytes1, "\x80Khq")
	set(bytes2, "M")
	set(bytes4, "Jjr")
	set(bytes8, "G")
	set(line, "FILSVgp")
	set(lines2, "ci")
	set(string1, "UC\x8c")
	set(string4, "TXB")
	set(string8, "\x8d\x8e\x96")
	set(long1, "\x8a")
	set(long4, "\x8b")
	set(frame, "\x95")
	return t
}()

// containers are the instructions that allocate more than a value.
const containers = "(})]tdl\x85\x86\x87\x8f\x91"

// scan walks the instructions of the pickle at the start of data, without running them, and returns its length.
func scan(data []byte) (int, error) {
	pos, made := 0, 0
	for ops := 0; ; ops++ {
		if pos >= len(data) {
			return 0, fmt.Errorf("the pickle ends at byte %d without a STOP", len(data))
		}
		if pos >= maxProgram || ops >= maxOps || made > maxContainers {
			return 0, fmt.Errorf("the pickle is too long (%d instructions, %d containers at byte %d)", ops, made, pos)
		}
		op := data[pos]
		n, err := size(op, data[pos+1:])
		if err != nil {
			return 0, fmt.Errorf("byte %d: %w", pos, err)
		}
		if n > len(data)-pos-1 {
			return 0, fmt.Errorf("byte %d: instruction 0x%02x needs %d bytes, there are %d", pos, op, n, len(data)-pos-1)
		}
		pos += 1 + n
		if op == '.' {
			return pos, checkNames(data[:pos])
		}
		if bytes.IndexByte([]byte(containers), op) >= 0 {
			made++
		}
	}
}

// arrayMaker is a function that the Unpickler allows without asking. It copies a string that may be named any number of
// times. No instruction puts strings together, so a pickle that names it contains its name.
const arrayMaker = "_array_reconstructor"

func checkNames(program []byte) error {
	if i := bytes.Index(program, []byte(arrayMaker)); i >= 0 {
		return fmt.Errorf("byte %d: refused: array.%s", i, arrayMaker)
	}
	return nil
}

// size returns the bytes of op's argument, of which rest is the beginning.
func size(op byte, rest []byte) (int, error) {
	switch a := arguments[op]; a {
	case none:
		return 0, nil
	case bytes1:
		return 1, nil
	case bytes2:
		return 2, nil
	case bytes4:
		return 4, nil
	case bytes8:
		return 8, nil
	case line:
		return lineSize(rest)
	case lines2:
		n, err := lineSize(rest)
		if err != nil {
			return 0, err
		}
		m, err := lineSize(rest[n:])
		return n + m, err
	case string1:
		return counted(op, rest, 1, maxString)
	case string4:
		return counted(op, rest, 4, maxString)
	case string8:
		return counted(op, rest, 8, maxString)
	case long1:
		return counted(op, rest, 1, maxLong)
	case long4:
		return counted(op, rest, 4, maxLong)
	case frame:
		n, err := counted(op, rest, 8, len(rest))
		if err == nil && n > len(rest) && len(rest) >= 8 {
			err = fmt.Errorf("a frame of %d bytes, there are %d", n-8, len(rest)-8)
		}
		return 8, err
	}
	if name, ok := refused[op]; ok {
		return 0, fmt.Errorf("refused: instruction %s", name)
	}
	return 0, fmt.Errorf("refused: unknown instruction 0x%02x", op)
}

// refused are the instructions that refer to what lies outside the file.
var refused = map[byte]string{
	'P': "PERSID", '\x82': "EXT1", '\x83': "EXT2", '\x84': "EXT4", '\x97': "NEXT_BUFFER", '\x98': "READONLY_BUFFER",
}

func lineSize(rest []byte) (int, error) {
	i := bytes.IndexByte(rest[:min(len(rest), maxLine)], '\n')
	if i < 0 {
		return 0, fmt.Errorf("no line feed within %d bytes", min(len(rest), maxLine))
	}
	return i + 1, nil
}

// counted is the size of an argument whose length comes before it, in width bytes.
func counted(op byte, rest []byte, width, limit int) (int, error) {
	if len(rest) < width {
		return width, nil // the caller sees that it is too long
	}
	var b [8]byte
	copy(b[:], rest[:width])
	n := binary.LittleEndian.Uint64(b[:])
	if n > uint64(limit) {
		return 0, fmt.Errorf("instruction 0x%02x with %d bytes, at most %d are plausible", op, n, limit)
	}
	return width + int(n), nil
}
