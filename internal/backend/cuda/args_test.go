package cuda

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/biolora/biolora/internal/backend/cuda/emu"
)

// kernelArguments is what every kernel takes, as its C++ source has it.
var kernelArguments = sync.OnceValues(func() (map[string]emu.Struct, error) {
	files, err := filepath.Glob("*.cu")
	if err != nil {
		return nil, err
	}
	all := map[string]emu.Struct{}
	for _, f := range files {
		kernels, err := emu.Arguments(f)
		if err != nil {
			return nil, err
		}
		for name, s := range kernels {
			all[name] = s
		}
	}
	return all, nil
})

// checkLaunches has each launch of this process see that its arguments are of the struct that mirrors the kernel's.
func checkLaunches() {
	launched = func(k kernel, args reflect.Type) {
		kernels, err := kernelArguments()
		if err != nil {
			panic(err)
		}
		if want := kernels[kernelNames[k]].Name; !strings.EqualFold(args.Name(), want) {
			panic(fmt.Sprintf("kernel %s takes %s, not %s", kernelNames[k], want, args.Name()))
		}
	}
}

// TestArguments: what Go gives a kernel has the fields of the kernel's struct: names, types, places, order.
func TestArguments(t *testing.T) {
	if onCard() {
		t.Skip("it compares sources")
	}
	emulatedDriver(t)
	kernels, err := kernelArguments()
	if err != nil {
		t.Fatal(err)
	}
	structs := goStructs(t)
	seen := map[string]bool{}
	for _, name := range kernelNames {
		want, ok := kernels[name]
		if !ok {
			t.Errorf("no .cu has kernel %s", name)
		}
		if seen[want.Name] {
			continue
		}
		seen[want.Name] = true
		goName := ""
		for n := range structs.structs {
			if strings.EqualFold(n, want.Name) {
				goName = n
			}
		}
		if goName == "" {
			t.Errorf("kernel %s takes %s: no struct of that name in Go", name, want.Name)
			continue
		}
		got, err := structs.layout(goName)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, diff := range differences(got, want) {
			t.Errorf("%s: %s", goName, diff)
		}
	}
}

// differences says where a struct of Go is not that of a kernel. Names are the same but for case and underscores.
func differences(got, want emu.Struct) (diffs []string) {
	if got.Size != want.Size {
		diffs = append(diffs, fmt.Sprintf("%d bytes, the kernel's has %d", got.Size, want.Size))
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for i := range max(len(got.Fields), len(want.Fields)) {
		var g, w emu.Field
		if i < len(got.Fields) {
			g = got.Fields[i]
		}
		if i < len(want.Fields) {
			w = want.Fields[i]
		}
		if plain(g.Name) != plain(w.Name) || g.Type != w.Type || g.Offset != w.Offset || g.Size != w.Size {
			diffs = append(diffs, fmt.Sprintf("field %d is %+v, the kernel's is %+v", i, g, w))
		}
	}
	return diffs
}

// TestDifferences: a comparison that finds two fields in each other's place, and each other way of being wrong.
func TestDifferences(t *testing.T) {
	field := func(name, kind string, offset, size int) emu.Field {
		return emu.Field{Name: name, Type: kind, Offset: offset, Size: size}
	}
	want := emu.Struct{Size: 16, Fields: []emu.Field{field("x", "pointer", 0, 8), field("ld_x", "i32", 8, 4), field("ld_y", "i32", 12, 4)}}
	same := emu.Struct{Size: 16, Fields: []emu.Field{field("x", "pointer", 0, 8), field("ldX", "i32", 8, 4), field("ldY", "i32", 12, 4)}}
	if d := differences(same, want); d != nil {
		t.Error(d)
	}
	for name, fields := range map[string][]emu.Field{
		"swapped": {same.Fields[0], field("ldY", "i32", 8, 4), field("ldX", "i32", 12, 4)},
		"missing": same.Fields[:2],
		"type":    {same.Fields[0], field("ldX", "float", 8, 4), same.Fields[2]},
		"offset":  {same.Fields[0], field("ldX", "i32", 12, 4), field("ldY", "i32", 16, 4)},
	} {
		if differences(emu.Struct{Size: 16, Fields: fields}, want) == nil {
			t.Errorf("%s: no difference", name)
		}
	}
	if differences(emu.Struct{Size: 24, Fields: same.Fields}, want) == nil {
		t.Error("size: no difference")
	}
}

// sourceTypes are this package's structs as their source has them, and its constants that are numbers.
type sourceTypes struct {
	structs map[string]*ast.StructType
	numbers map[string]int
}

func goStructs(t *testing.T) sourceTypes {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	s := sourceTypes{map[string]*ast.StructType{}, map[string]int{}}
	for _, f := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if x, ok := n.Type.(*ast.StructType); ok {
					s.structs[n.Name.Name] = x
				}
			case *ast.ValueSpec:
				for i, v := range n.Values {
					if x, ok := v.(*ast.BasicLit); ok && x.Kind == token.INT {
						s.numbers[n.Names[i].Name], _ = strconv.Atoi(x.Value) // hexadecimal ones are no lengths
					}
				}
			}
			return true
		})
	}
	return s
}

// goTypes are the types of fields, by how Go spells them.
var goTypes = map[string]struct {
	name string
	size int
}{"driver.Ptr": {"pointer", 8}, "int32": {"i32", 4}, "uint32": {"u32", 4}, "float32": {"float", 4}, "int64": {"i64", 8}, "uint64": {"u64", 8}, "float64": {"double", 8}}

// layout is a struct as the compiler lays it out on machines with pointers of 8 bytes; fields of structs and elements of
// arrays are fields of their own, padding is none.
func (s sourceTypes) layout(name string) (emu.Struct, error) {
	out := emu.Struct{Name: name}
	alignment := 1
	align := func(to int) {
		out.Size = (out.Size + to - 1) / to * to
		alignment = max(alignment, to)
	}
	var add func(field string, x ast.Expr) error
	add = func(field string, x ast.Expr) error {
		switch x := x.(type) {
		case *ast.ArrayType:
			var count int
			switch n := x.Len.(type) {
			case *ast.BasicLit:
				count, _ = strconv.Atoi(n.Value)
			case *ast.Ident:
				count = s.numbers[n.Name]
			}
			if count == 0 {
				return fmt.Errorf("%s: %s is an array of a length that is no number", name, field)
			}
			for i := range count {
				if err := add(fmt.Sprintf("%s[%d]", field, i), x.Elt); err != nil {
					return err
				}
			}
			return nil
		case *ast.Ident:
			if s.structs[x.Name] == nil {
				break
			}
			inner, err := s.layout(x.Name)
			if err != nil {
				return err
			}
			align(8) // those that are used begin with pointers
			at := out.Size
			for _, f := range inner.Fields {
				f.Name, f.Offset = field+"."+f.Name, at+f.Offset
				out.Fields = append(out.Fields, f)
			}
			out.Size = at + inner.Size
			return nil
		}
		spelt := ""
		switch x := x.(type) {
		case *ast.Ident:
			spelt = x.Name
		case *ast.SelectorExpr:
			spelt = fmt.Sprint(x.X, ".", x.Sel.Name)
		}
		kind, ok := goTypes[spelt]
		if !ok {
			return fmt.Errorf("%s: %s is of a type that arguments do not have", name, field)
		}
		align(kind.size)
		if field != "_" {
			out.Fields = append(out.Fields, emu.Field{Name: field, Type: kind.name, Offset: out.Size, Size: kind.size})
		}
		out.Size += kind.size
		return nil
	}
	for _, f := range s.structs[name].Fields.List {
		for _, n := range f.Names {
			if err := add(n.Name, f.Type); err != nil {
				return out, err
			}
		}
	}
	align(alignment)
	return out, nil
}
