package tokenizer

import (
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// message is a message in protobuf's wire format, with the place where it stands in its file.
type message struct {
	file string
	name string // "" for the outermost
	nth  int    // of several with this name, -1 for an only one
	data []byte
	at   int // byte of the file that data begins at
}

// errorf describes an error at a byte of the message.
func (m message) errorf(offset int, format string, args ...any) error {
	where := fmt.Sprintf("%s (byte %d)", m.file, m.at+offset)
	if m.name != "" {
		where += ": " + m.name
	}
	if m.name != "" && m.nth >= 0 {
		where += fmt.Sprintf(" %d", m.nth)
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

// field is one field of a message. Of the values only that of its type is set.
type field struct {
	number protowire.Number
	wire   protowire.Type
	at     int // byte of the message that the value begins at
	varint uint64
	bytes  []byte
	fixed  uint32
}

// fields reads the fields in their order. What it calls read for is inside the message; other types are passed over.
func (m message) fields(read func(f field) error) error {
	for at := 0; at < len(m.data); {
		number, wire, n := protowire.ConsumeTag(m.data[at:])
		if n < 0 {
			return m.errorf(at, "bad field: %s", wireProblem(n))
		}
		f := field{number: number, wire: wire, at: at + n}
		rest := m.data[f.at:]
		switch wire {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(rest)
		case protowire.Fixed32Type:
			f.fixed, n = protowire.ConsumeFixed32(rest)
		case protowire.BytesType:
			var size uint64
			if size, n = protowire.ConsumeVarint(rest); n < 0 {
				break
			}
			if rest = rest[n:]; size > uint64(len(rest)) {
				return m.errorf(at, "field %d says that it has %d bytes, but %d are left", number, size, len(rest))
			}
			f.at += n
			f.bytes, n = rest[:size], int(size)
		default:
			n = protowire.ConsumeFieldValue(number, wire, rest)
		}
		if n < 0 {
			return m.errorf(at, "field %d: %s", number, wireProblem(n))
		}
		if err := read(f); err != nil {
			return err
		}
		at = f.at + n
	}
	return nil
}

// wireProblem says what a negative length of protowire means.
func wireProblem(n int) string {
	text := protowire.ParseError(n).Error()
	return strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
}

// within returns the message that f holds.
func (m message) within(f field, name string, nth int) message {
	return message{file: m.file, name: name, nth: nth, data: f.bytes, at: m.at + f.at}
}

// The values of a field. A field of another wire type than its number has is an error.

func (m message) text(f field, dst *string) error {
	if f.wire != protowire.BytesType {
		return m.wrongType(f, "bytes")
	}
	*dst = string(f.bytes)
	return nil
}

func (m message) float(f field, dst *float32) error {
	if f.wire != protowire.Fixed32Type {
		return m.wrongType(f, "a float")
	}
	*dst = math.Float32frombits(f.fixed)
	return nil
}

func (m message) integer(f field, dst *int32) error {
	if f.wire != protowire.VarintType {
		return m.wrongType(f, "a number")
	}
	*dst = int32(f.varint) // negative numbers are written in 64 bits
	return nil
}

func (m message) boolean(f field, dst *bool) error {
	if f.wire != protowire.VarintType {
		return m.wrongType(f, "a boolean")
	}
	*dst = f.varint != 0
	return nil
}

func (m message) wrongType(f field, want string) error {
	return m.errorf(f.at, "field %d has wire type %d, want %s", f.number, f.wire, want)
}
