package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Format writes a value that Parse returned, or one made of the same types, as Python's json.dump with indent=2 does:
// the keys in their order, numbers as they were, and a newline at the end. Strings keep their characters, with only
// those escaped that JSON requires. Values of other types become null.
func Format(v any) []byte {
	var b bytes.Buffer
	format(&b, v, 0)
	b.WriteByte('\n')
	return b.Bytes()
}

func format(b *bytes.Buffer, v any, depth int) {
	newline := func(depth int) { b.WriteString("\n" + strings.Repeat("  ", depth)) }
	switch v := v.(type) {
	case bool:
		fmt.Fprint(b, v)
	case json.Number:
		b.WriteString(string(v))
	case string:
		quote(b, v)
	case []any:
		if len(v) == 0 {
			b.WriteString("[]")
			return
		}
		for i, e := range v {
			b.WriteByte("[,"[min(i, 1)])
			newline(depth + 1)
			format(b, e, depth+1)
		}
		newline(depth)
		b.WriteByte(']')
	case *Object:
		if len(v.Keys) == 0 {
			b.WriteString("{}")
			return
		}
		for i, key := range v.Keys {
			b.WriteByte("{,"[min(i, 1)])
			newline(depth + 1)
			quote(b, key)
			b.WriteString(": ")
			format(b, v.values[key], depth+1)
		}
		newline(depth)
		b.WriteByte('}')
	default:
		b.WriteString("null")
	}
}

func quote(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)         // a string cannot fail
	b.Truncate(b.Len() - 1) // the newline that Encode adds
}
