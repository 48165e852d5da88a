package emu

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Field is a field of a kernel's arguments; one of an array is NAME[i].
type Field struct {
	Name         string
	Type         string // "pointer", or the C type
	Offset, Size int
}

// Struct is what a kernel takes.
type Struct struct {
	Name   string
	Size   int
	Fields []Field
}

// sizes of the types that arguments have; each is aligned to its size.
var sizes = map[string]int{"i32": 4, "u32": 4, "float": 4, "i64": 8, "u64": 8, "double": 8}

var (
	kernelText = regexp.MustCompile(`CU_KERNEL (\w+) (\w+) `)
	structText = regexp.MustCompile(`struct (\w+) \{([^{}]*)\};`)
	spaces     = regexp.MustCompile(`\s+`)
)

// Arguments returns what each kernel of a .cu file takes, by the kernel's name.
func Arguments(source string) (map[string]Struct, error) {
	if _, err := Driver(); err != nil {
		return nil, err
	}
	return whole.builder.arguments(source)
}

func (b *builder) arguments(source string) (map[string]Struct, error) {
	// cu.h leaves each KERNEL as CU_KERNEL and its arguments then.
	text, err := b.output("-std=c++17", "-E", "-P", "-DCU_FIELDS", "-iquote", b.kernels, "-x", "c++", source)
	if err != nil {
		return nil, err
	}
	text = spaces.ReplaceAllString(text, " ")
	structs := map[string]Struct{}
	for _, m := range structText.FindAllStringSubmatch(text, -1) {
		if s, err := parseStruct(m[1], m[2], structs); err == nil {
			structs[m[1]] = s
		}
	}
	kernels := map[string]Struct{}
	for _, m := range kernelText.FindAllStringSubmatch(text, -1) {
		s, ok := structs[m[2]]
		if !ok {
			return nil, fmt.Errorf("%s: kernel %s takes %s, which is not a plain struct of this file", filepath.Base(source), m[1], m[2])
		}
		kernels[m[1]] = s
	}
	return kernels, nil
}

// parseStruct reads declarations: types of sizes, pointers, arrays, and structs that came before.
func parseStruct(name, body string, known map[string]Struct) (Struct, error) {
	s := Struct{Name: name}
	alignment := 1
	add := func(field, kind string, size, align int) {
		s.Size = (s.Size + align - 1) / align * align
		s.Fields = append(s.Fields, Field{field, kind, s.Size, size})
		s.Size += size
		alignment = max(alignment, align)
	}
	for _, declaration := range strings.Split(body, ";") {
		declaration = strings.TrimPrefix(strings.TrimSpace(declaration), "const ")
		if declaration == "" {
			continue
		}
		kind, names, ok := strings.Cut(declaration, " ")
		if !ok {
			return s, fmt.Errorf("%s: %q", name, declaration)
		}
		for _, n := range strings.Split(names, ",") {
			n = strings.TrimSpace(n)
			count, array := 1, false
			if from := strings.IndexByte(n, '['); from >= 0 {
				var err error
				if count, err = strconv.Atoi(strings.TrimSuffix(n[from+1:], "]")); err != nil {
					return s, fmt.Errorf("%s: %q: %w", name, n, err)
				}
				n, array = n[:from], true
			}
			plain := strings.TrimSpace(n[strings.LastIndexByte(n, '*')+1:])
			inner, nested := known[kind]
			size := sizes[kind]
			for i := range count {
				field := plain
				if array {
					field = fmt.Sprintf("%s[%d]", plain, i)
				}
				switch {
				case strings.Contains(n, "*"):
					add(field, "pointer", 8, 8)
				case nested:
					s.Size = (s.Size + 7) / 8 * 8 // those that are used begin with pointers
					at := s.Size
					for _, f := range inner.Fields {
						s.Size = at + f.Offset
						add(field+"."+f.Name, f.Type, f.Size, f.Size)
					}
					s.Size = at + inner.Size
				case size == 0:
					return s, fmt.Errorf("%s: %q: a type that arguments do not have", name, kind)
				default:
					add(field, kind, size, size)
				}
			}
		}
	}
	s.Size = (s.Size + alignment - 1) / alignment * alignment
	return s, nil
}

// pointerTables is C++ text that tells the emulated driver where kernels' arguments have pointers. The compiler checks
// the offsets.
func (b *builder) pointerTables(source string) (string, error) {
	kernels, err := b.arguments(source)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	text.WriteString("#include <cstddef>\n")
	for name, s := range kernels {
		var offsets []string
		for _, f := range s.Fields {
			fmt.Fprintf(&text, "static_assert(offsetof(%s, %s) == %d, \"%s\");\n", s.Name, f.Name, f.Offset, f.Name)
			if f.Type == "pointer" {
				offsets = append(offsets, strconv.Itoa(f.Offset))
			}
		}
		fmt.Fprintf(&text, "static_assert(sizeof(%s) == %d, \"size\");\nstatic emu::Pointers %s_pointers(%q, {%s});\n", s.Name, s.Size, name, name, strings.Join(offsets, ", "))
	}
	return text.String(), nil
}
