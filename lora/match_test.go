package lora

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The dimensions of make_match_cases.py.
const (
	testHidden, testFF, testVocab = 8, 12, 16
)

var shapes = []struct {
	name    string
	in, out int
}{
	{"self_attn.q_proj", testHidden, testHidden}, {"self_attn.k_proj", testHidden, testHidden / 2},
	{"self_attn.v_proj", testHidden, testHidden / 2}, {"self_attn.o_proj", testHidden, testHidden},
	{"mlp.gate_proj", testHidden, testFF}, {"mlp.up_proj", testHidden, testFF}, {"mlp.down_proj", testFF, testHidden},
}

func testLinears(layers int) []Module {
	var out []Module
	for i := range layers {
		for _, s := range shapes {
			out = append(out, Module{Name: fmt.Sprintf("model.layers.%d.%s", i, s.name), In: s.in, Out: s.out})
		}
	}
	return append(out, Module{Name: lmHead, In: testHidden, Out: testVocab})
}

func testModules(layers int) []Module { return Decoder(testLinears(layers), testVocab, testHidden) }

type peftCase struct {
	Layers  int
	Tied    bool
	Config  json.RawMessage
	Error   string
	Other   bool
	Targets map[string][]string // "r alpha scale": names
	Save    []string
	Shared  bool
	Saved   []string // target_modules as saved; nil for a string
	Expr    string
}

func (c *peftCase) UnmarshalJSON(data []byte) error {
	type plain peftCase
	var saved struct{ Saved any }
	if err := json.Unmarshal(data, &saved); err != nil {
		return err
	}
	if s, ok := saved.Saved.(string); ok {
		c.Expr = s
		data = []byte(strings.Replace(string(data), `"saved":`, `"ignored":`, 1))
	}
	return json.Unmarshal(data, (*plain)(c))
}

func (c *peftCase) text() string {
	return strings.Replace(strings.Replace(string(c.Config), "{", `{"peft_type":"LORA",`, 1), ",}", "}", 1)
}

func readPEFTCases(tb testing.TB) (modules []string, cases []peftCase) {
	data, err := os.ReadFile("testdata/match.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct {
		Modules []string
		Cases   []peftCase
	}
	if err := json.Unmarshal(data, &file); err != nil {
		tb.Fatal(err)
	}
	return file.Modules, file.Cases
}

func TestDecoderListsTransformersModules(t *testing.T) {
	want, _ := readPEFTCases(t)
	var got []string
	for _, m := range testModules(2) {
		got = append(got, m.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

var layerName = regexp.MustCompile(`^model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$`)

func shortTargets(targets []Target) map[string][]string {
	out := map[string][]string{}
	for _, t := range targets {
		key := fmt.Sprintf("%d %v %.12g", t.R, t.Alpha, t.Scale)
		out[key] = append(out[key], layerName.ReplaceAllString(t.Name, "$1.$2"))
	}
	return out
}

// canonical writes Python's numbers as shortTargets does.
func canonical(targets map[string][]string) map[string][]string {
	out := map[string][]string{}
	for key, names := range targets {
		var r int
		var alpha, scale float64
		if _, err := fmt.Sscan(key, &r, &alpha, &scale); err != nil {
			panic(err)
		}
		key = fmt.Sprintf("%d %v %.12g", r, alpha, scale)
		out[key] = append(out[key], names...)
	}
	return out
}

// Each configuration adapts what it adapts in PEFT, and is saved so that it does so again.
func TestPEFT(t *testing.T) {
	_, cases := readPEFTCases(t)
	matched := 0
	for i, c := range cases {
		name := fmt.Sprintf("case %d, %d layers, tied %v, %s", i, c.Layers, c.Tied, c.Config)
		cfg, err := ParseConfig([]byte(c.text()))
		var m *Matching
		if err == nil {
			m, err = cfg.plan(testModules(c.Layers), c.Tied)
		}
		if c.Error != "" || c.Other {
			if err == nil {
				t.Errorf("%s: accepted; PEFT: %s", name, c.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		matched++
		if d := cmp.Diff(canonical(c.Targets), shortTargets(m.Targets)); d != "" {
			t.Errorf("%s: (-PEFT +ours)\n%s", name, d)
		}
		if d := cmp.Diff(c.Save, m.saveNames()); d != "" {
			t.Errorf("%s: (-PEFT +ours)\n%s", name, d)
		}
		if c.Shared != m.tie {
			t.Errorf("%s: one matrix: %v, PEFT %v", name, m.tie, c.Shared)
		}
		if d := cmp.Diff(Names{List: c.Saved, Expr: c.Expr}, m.Config.TargetModules); d != "" {
			t.Errorf("%s: saved (-PEFT +ours)\n%s", name, d)
		}
		checkSaved(t, name, m, testModules(c.Layers), c.Tied)
	}
	if matched < 300 {
		t.Errorf("only %d cases match", matched)
	}
}

// checkSaved reads the saved configuration anew, as PEFT would: with sorted patterns.
func checkSaved(t *testing.T, name string, m *Matching, modules []Module, tied bool) {
	text, err := m.Config.text()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	again, err := ParseConfig(text)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	n, err := again.plan(modules, tied)
	if err != nil {
		t.Errorf("%s: saved: %v", name, err)
		return
	}
	if d := cmp.Diff(m.Targets, n.Targets); d != "" {
		t.Errorf("%s: saved and loaded:\n%s", name, d)
	}
	if d := cmp.Diff(m.Save, n.Save); d != "" {
		t.Errorf("%s: saved and loaded:\n%s", name, d)
	}
	if d := cmp.Diff(m.Config, n.Config); d != "" {
		t.Errorf("%s: saved again:\n%s", name, d)
	}
}

func (m *Matching) saveNames() []string {
	names := []string{}
	for _, s := range m.Save {
		names = append(names, s.Name)
	}
	return names
}
