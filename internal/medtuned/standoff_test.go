package medtuned

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/biolora/biolora/internal/hostile"
	"github.com/biolora/biolora/internal/rows"
)

// layOut writes files below a new directory and returns it.
func layOut(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// converted converts files below a directory, which is left out of the errors.
func converted(t testing.TB, name, dir string, files ...string) (list []rows.Row, errs, skipped []string) {
	t.Helper()
	var paths []string
	for _, f := range files {
		paths = append(paths, filepath.Join(dir, f))
	}
	o := Options{Split: "train", Skipped: func(p rows.Place, why string) { skipped = append(skipped, fmt.Sprint(p.Line, " ", why)) }}
	for row, err := range lookup(t, name).Convert(t.Context(), paths, o) {
		if err != nil {
			errs = append(errs, strings.ReplaceAll(err.Error(), dir+"/", ""))
			continue
		}
		list = append(list, row)
	}
	return list, errs, skipped
}

// brief is what a test compares of rows.
func brief(list []rows.Row) (all []string) {
	for _, r := range list {
		all = append(all, r.ID+" | "+r.Input+" | "+strings.ReplaceAll(r.Output, "\n", ", "))
	}
	return all
}

const madeUpNote = `ADMISSION NOTE
He took  aspirin for "chest pain" .
 An ECG showed no infarction .

The ECG and the film were normal .
`

const madeUpConcepts = `c="aspirin" 2:2 2:2||t="treatment"
c=""chest pain"" 2:4 2:5||t="problem"
c="an ecg" 3:1 3:2||t="test"
c="infarction" 3:5 3:5||t="problem"
c="infarction" 3:5 3:5||t="problem"
c="infarction . the" 3:5 5:0||t="problem"
c="the ecg" 5:0 5:1||t="test"
c="ecg" 5:1 5:1||t="test"
c="the film" 5:3 5:4||t="test"
`

const madeUpRelations = `c="aspirin" 2:2 2:2||r="TrAP"||c=""chest pain"" 2:4 2:5

c="infarction" 3:5 3:5||r="TeRP"||c="an ecg" 3:1 3:2
c="an ecg" 3:1 3:2||r="TeCP"||c="infarction" 3:5 3:5
c="an ecg" 3:1 3:2||r="TeRP"||c="infarction" 3:5 3:5
`

// TestConceptPairs: the folders of the corpus; a pair of two relations has a row for each, and one without has a row, too.
func TestConceptPairs(t *testing.T) {
	dir := layOut(t, map[string]string{"concept/n.con": madeUpConcepts, "txt/n.txt": madeUpNote, "rel/n.rel": madeUpRelations})
	got, errs, skipped := converted(t, "i2b2-2010", dir, "concept/n.con")
	want := []string{
		"i2b2-2010/n/0 | He took @treatment$ for @problem$ . | TrAP",
		"i2b2-2010/n/1 | @test$ showed no @problem$ . | TeRP",
		"i2b2-2010/n/2 | @test$ showed no @problem$ . | TeCP",
		"i2b2-2010/n/3 | @test$ and @test$ were normal . | No Relations",
		"i2b2-2010/n/4 | The @test$ and @test$ were normal . | No Relations",
	}
	if d := cmp.Diff(want, brief(got)); d != "" || errs != nil {
		t.Errorf("%s, %q", d, errs)
	}
	over := []string{"5 a concept that is there twice", "6 a concept of more than one line", "8 a concept with one that overlaps with it: the two cannot both be marked"}
	if d := cmp.Diff(over, skipped); d != "" {
		t.Error(d)
	}
}

func TestConceptTags(t *testing.T) {
	dir := layOut(t, map[string]string{"n.con": madeUpConcepts, "n.txt": madeUpNote})
	got, errs, skipped := converted(t, "ner-typed", dir, "n.con")
	want := []string{
		"ner-typed/n/0 | ADMISSION NOTE | ADMISSION : O, NOTE : O",
		`ner-typed/n/1 | He took aspirin for "chest pain" . | He : O, took : O, aspirin : B-TREATMENT, for : O, "chest : B-PROBLEM, pain" : I-PROBLEM, . : O`,
		"ner-typed/n/2 | An ECG showed no infarction . | An : B-TEST, ECG : I-TEST, showed : O, no : O, infarction : B-PROBLEM, . : O",
		"ner-typed/n/3 | The ECG and the film were normal . | The : B-TEST, ECG : I-TEST, and : O, the : B-TEST, film : I-TEST, were : O, normal : O, . : O",
	}
	if d := cmp.Diff(want, brief(got)); d != "" || errs != nil || len(skipped) != 3 || skipped[2] != "8 what overlaps with something that begins before it" {
		t.Errorf("%s, %q, %q", d, errs, skipped)
	}
	if got, _, _ := converted(t, "ner", dir, "n.con"); len(got) != 4 || !strings.HasSuffix(got[2].Output, "no : O\ninfarction : B\n. : O") {
		t.Errorf("%+v", got)
	}
}

// TestBadConcepts: a line with a bad concept makes no row, since it is not known what it has; nor does a note in which
// something cannot be placed.
func TestBadConcepts(t *testing.T) {
	dir := layOut(t, map[string]string{
		"n.txt": madeUpNote,
		"n.con": `c="aspirin" 2:2 2:2||t="treatment"
c="chest" 2:4 2:4||t="problem"
c="an ecg" 3:1 3:2||t="test"
c="infarction" 3:5 3:5||t="problem"
c="the ecg" 5:0 5:9||t="test"
`,
		"n.rel": `c="infarction" 3:5 3:5||r="TrAP"||c="an ecg" 3:1 3:2
c="showed" 3:3 3:3||r="TeRP"||c="infarction" 3:5 3:5
`,
		"lost.txt": madeUpNote,
		"lost.con": `c="an ecg" 3:1 3:2||t="test"
c="infarction" 3:5 3:5||t="problem"
c="x" 99:0 99:0||t="test"
c="the ecg" 5:0 5:9||t="test"
aspirin, a treatment
`,
		"lost.rel": `c="infarction" 3:5 3:5||r="TrAP"||c="an ecg" 3:1 3:2
c="an ecg" 3:1 3:2||r="No Relations"||c="infarction" 3:5 3:5
c="an ecg" 3:1 3:2||r="XYZ"||c="infarction" 3:5 3:5
TrAP
`})
	got, errs, _ := converted(t, "i2b2-2010", dir, "n.con")
	if want := []string{"i2b2-2010/n/0 | @test$ showed no @problem$ . | TrAP"}; cmp.Diff(want, brief(got)) != "" {
		t.Errorf("%q", brief(got))
	}
	want := []string{
		"n.rel:2: the .con file has no two concepts of one line where this relation has them",
		`n.con:2: words 4 to 4 of line 2 are "\"chest", and not "chest"`,
		"n.con:5: words 0 to 9 of line 5, which has 8",
	}
	if d := cmp.Diff(want, errs); d != "" {
		t.Error(d)
	}
	got, errs, _ = converted(t, "ner-typed", dir, "n.con")
	if d := cmp.Diff(want[1:], errs); d != "" || len(got) != 2 {
		t.Errorf("%s, %q", d, brief(got))
	}
	labels := "PIP, TeCP, TeRP, TrAP, TrCP, TrIP, TrNAP, TrWP"
	want = []string{
		"lost.con:3: line 99 of a note of 6",
		`lost.con:5: expected c="..." 1:0 1:1||t="problem", got "aspirin, a treatment"`,
		`lost.rel:2: expected a relation of ` + labels + `, got "No Relations"`,
		`lost.rel:3: expected a relation of ` + labels + `, got "XYZ"`,
		`lost.rel:4: expected c="..." 1:0 1:1||r="TrAP"||c="..." 1:3 1:4, got "TrAP"`,
		"lost.con:4: words 0 to 9 of line 5, which has 8",
	}
	got, errs, skipped := converted(t, "i2b2-2010", dir, "lost.con")
	if d := cmp.Diff(want, errs); d != "" || got != nil || !slices.Equal(skipped, []string{"1 a note in which something has no place that is known"}) {
		t.Errorf("%s, %q, %q", d, brief(got), skipped)
	}
	got, errs, _ = converted(t, "ner-typed", dir, "lost.con")
	if d := cmp.Diff([]string{want[0], want[1], want[5]}, errs); d != "" || got != nil {
		t.Errorf("%s, %q", d, brief(got))
	}
	for file, want := range map[string]string{
		"n.txt": "name n.con: its .txt is found beside it", "n.rel": "name n.con: its .rel is found beside it",
		"gone.con": "there is neither gone.txt nor",
	} {
		if _, errs, _ := converted(t, "i2b2-2010", dir, file); len(errs) != 1 || !strings.Contains(errs[0], want) {
			t.Errorf("%s: %q", file, errs)
		}
	}
	if err := os.Remove(filepath.Join(dir, "n.rel")); err != nil {
		t.Fatal(err)
	}
	if got, errs, _ := converted(t, "i2b2-2010", dir, "n.con"); got != nil || len(errs) != 1 || !strings.Contains(errs[0], "there is neither n.rel nor") {
		t.Errorf("without relations: %q, %q", got, errs)
	}
}

// madeUpEvents is a file of i2b2-2012's form, with what some of the corpus's own have in attributes.
const madeUpEvents = `<?xml version="1.0" encoding="UTF-8" ?>
<ClinicalNarrativeTemporalAnnotation>
<TEXT><![CDATA[
Admission :
He came with "crushing" pain & fever (38°) .
CT < normal limits .
]]></TEXT>
<TAGS>
<EVENT id="E0" start="%d" end="%d" text="Admission" modality="FACTUAL" polarity="POS" type="OCCURRENCE" />
<EVENT id="E1" start="%d" end="%d" text=""crushing" pain" modality="FACTUAL" polarity="POS" type="PROBLEM" />
<EVENT id="E2" start="%d" end="%d" text="pain & fever" modality="FACTUAL" polarity="POS" type="PROBLEM" />
<EVENT id="E3" start="%d" end="%d" text="(38°) .
CT" modality="FACTUAL" polarity="POS" type="TEST" />
<EVENT id="E4" start="%d" end="%d" text="CT &lt; normal" modality="FACTUAL" polarity="POS" type="test" sec_time_rel="AFTER" />
<TIMEX3 id="T0" start="1" end="2" text="x" type="DATE" val="" mod="NA" />
</TAGS>
</ClinicalNarrativeTemporalAnnotation>
`

// eventsFrom counts the made-up events' characters from base.
func eventsFrom(base int) string {
	text := []rune(madeUpEvents[strings.Index(madeUpEvents, "\nAdmission"):strings.Index(madeUpEvents, "]]>")])
	var numbers []any
	for _, e := range []string{"Admission", `"crushing" pain`, "pain & fever", "(38°) .\nCT", "CT < normal"} {
		at := len([]rune(string(text)[:strings.Index(string(text), e)])) + base
		numbers = append(numbers, at, at+len([]rune(e)))
	}
	return fmt.Sprintf(madeUpEvents, numbers...)
}

// TestEvents: wherever characters are counted from, and with the text in CDATA or not, the same words are tagged.
func TestEvents(t *testing.T) {
	want := []string{
		"i2b2-2012/n/0 | Admission : | Admission : B-OCCURRENCE, : : O",
		`i2b2-2012/n/1 | He came with "crushing" pain & fever (38°) . | He : O, came : O, with : O, "crushing" : B-PROBLEM, pain : I-PROBLEM, & : O, fever : O, (38°) : O, . : O`,
		"i2b2-2012/n/2 | CT < normal limits . | CT : B-TEST, < : I-TEST, normal : I-TEST, limits : O, . : O",
	}
	plain := strings.NewReplacer("<![CDATA[", "", "]]>", "", "pain & fever (", "pain &amp; fever (", "CT < normal", "CT &lt; normal").Replace(eventsFrom(0))
	for name, text := range map[string]string{"from 0": eventsFrom(0), "from 1": eventsFrom(1), "line ends": strings.ReplaceAll(eventsFrom(0), "\n", "\r\n"), "escaped": plain} {
		dir := layOut(t, map[string]string{"n.xml": text})
		got, errs, skipped := converted(t, "i2b2-2012", dir, "n.xml")
		if d := cmp.Diff(want, brief(got)); d != "" || errs != nil {
			t.Errorf("%s: %s, %q", name, d, errs)
		}
		if d := cmp.Diff([]string{"12 an event of more than one line", "11 what overlaps with something that begins before it"}, skipped); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestBadEvents(t *testing.T) {
	text := strings.NewReplacer(`type="OCCURRENCE"`, `type="ARRIVAL"`, `text="CT &lt; normal"`, `text="CT < high"`).Replace(eventsFrom(0))
	lost := strings.NewReplacer(`id="E2" start="`, `id="E2" start="9`, ` text="(38°)`, ` words="(38°)`).Replace(text)
	dir := layOut(t, map[string]string{"n.xml": text, "lost.xml": lost})
	got, errs, _ := converted(t, "i2b2-2012", dir, "n.xml")
	want := []string{
		`n.xml:9: expected one of the types PROBLEM, TEST, TREATMENT, CLINICAL_DEPT, EVIDENTIAL, OCCURRENCE, got "ARRIVAL"`,
		`n.xml:14: characters 58 to 69 are "CT < normal", and not "CT < high"`,
	}
	if d := cmp.Diff(want, errs); d != "" || len(got) != 1 {
		t.Errorf("%s, %q", d, brief(got))
	}
	got, errs, _ = converted(t, "i2b2-2012", dir, "lost.xml")
	if len(errs) != 4 || got != nil || !strings.HasPrefix(errs[0], "lost.xml:12: expected an EVENT with start, end, text and type, got \" id=") ||
		errs[1] != "lost.xml:11: characters 937 to 49 of a text of 79" || errs[2] != "lost.xml:9"+want[0][len("n.xml:9"):] {
		t.Errorf("%q, %q", errs, brief(got))
	}
	for text, want := range map[string]string{
		"<TAGS></TAGS>":                      "n.xml: no element TEXT",
		"<x>\n<TEXT><![CDATA[\na</TEXT>":     "n.xml:2: the text has no end ]]>",
		"<TEXT>a":                            "n.xml:1: the text has no end </TEXT>",
		"<TEXT>a</TEXT>":                     "n.xml: no element TAGS after the text",
		"<TEXT>a</TEXT><TAGS>\n<EVENT id=1>": "n.xml:2: an EVENT without its end />",
		"<TEXT>\n\xff</TEXT>":                "n.xml:2: invalid UTF-8",
		"<TEXT>\x00</TEXT>":                  "n.xml: a zero byte: the file is no text in UTF-8",
		`<TEXT>a  b</TEXT><TAGS><EVENT id="" start="1" end="3" text="" type="TEST" />`: "n.xml:1: characters 1 to 3 have no word",
	} {
		dir := layOut(t, map[string]string{"n.xml": text})
		if _, errs, _ := converted(t, "i2b2-2012", dir, "n.xml"); !slices.Contains(errs, want) {
			t.Errorf("%q: %q, want %q", text, errs, want)
		}
	}
}

// TestAbstracts: Hallmarks of Cancer as the corpus has it, as BLUE has it, and with flags.
func TestAbstracts(t *testing.T) {
	dir := layOut(t, map[string]string{
		"text/1.txt":   "It induced apoptosis .\nNothing new .\nCells grew and spread .\n",
		"labels/1.txt": "<Resisting cell death--Apoptosis < NULL<Sustaining proliferative signaling--Receptors AND  Activating invasion and metastasis--Invasion ANDSustaining proliferative signaling--Cell cycle",
		"2.txt":        "Vessels grew .\t['inducing angiogenesis']\nNo labels .\t[]\n",
		"train.tsv":    "labels\tsentence\tindex\n0_1,1_0,2_0,3_0,4_0,5_0,6_0,7_0,8_0,9_1\tIt spread .\t3_s0\n0_0,1_0,2_0,3_0,4_0,5_0,6_0,7_0,8_0,9_0\tNo .\t3_s1\n",
	})
	got, errs, _ := converted(t, "hoc", dir, "text/1.txt", "2.txt", "train.tsv")
	want := []string{
		"hoc/1/0 | It induced apoptosis . | Resisting cell death (CD)", "hoc/1/1 | Nothing new . | None",
		"hoc/1/2 | Cells grew and spread . | Sustaining proliferative signaling (PS), Activating invasion and metastasis (IM)",
		"hoc/2/0 | Vessels grew . | Inducing angiogenesis (A)", "hoc/2/1 | No labels . | None",
		"hoc/train/0 | It spread . | Activating invasion and metastasis (IM), Tumor promoting inflammation (TPI)", "hoc/train/1 | No . | None",
	}
	if d := cmp.Diff(want, brief(got)); d != "" || errs != nil {
		t.Errorf("%s, %q", d, errs)
	}
	got, errs, _ = converted(t, "hoc-documents", dir, "text/1.txt", "2.txt", "train.tsv")
	want = []string{
		"hoc-documents/1 | It induced apoptosis . Nothing new . Cells grew and spread . | Sustaining proliferative signaling (PS), Resisting cell death (CD), Activating invasion and metastasis (IM)",
		"hoc-documents/2 | Vessels grew . No labels . | Inducing angiogenesis (A)",
		"hoc-documents/3 | It spread . No . | Activating invasion and metastasis (IM), Tumor promoting inflammation (TPI)",
	}
	if d := cmp.Diff(want, brief(got)); d != "" || errs != nil {
		t.Errorf("%s, %q", d, errs)
	}
}

func TestBadAbstracts(t *testing.T) {
	dir := layOut(t, map[string]string{
		"text/1.txt": "a .\n\nc .\n", "labels/1.txt": "<Growing < <",
		"text/2.txt": "a .\n", "labels/2.txt": "< <",
		"text/3.txt": "a .\n", "labels/3.txt": "x< ",
		"text/4.txt": "a .\n",
		"text/5.txt": "a .\t['x']\nb .\nc .\t[]\n",
		"train.tsv":  "labels\tsentence\n0_1,1_0\ta\n0_1,0_1\tb\n0_1,x\tc\nx,0_1\td\n",
	})
	known := strings.Join(lookup(t, "hoc").Task.Labels, ", ")
	for file, want := range map[string][]string{
		"text/1.txt": {"text/1.txt:1: expected hallmarks of cancer (" + known + `) or none, got "Growing"`, "text/1.txt:2: the sentence is empty"},
		"text/2.txt": {"labels/2.txt: labels of 2 sentences, and text/2.txt has 1"},
		"text/3.txt": {`labels/3.txt:1: expected "<" before the labels of the first sentence, got "x"`},
		"text/4.txt": {"text/4.txt: no labels in its lines, and none beside it: stat labels/4.txt: no such file or directory"},
		"text/5.txt": {"text/5.txt:1: expected hallmarks of cancer (" + known + `) or none, got "x"`, "text/5.txt:2: expected a sentence, a tab and its labels"},
		"train.tsv": {"train.tsv:2: 2 flags, expected one for each of the 10 hallmarks", "train.tsv:3: the flag of hallmark 0 is there twice",
			`train.tsv:4: expected a flag such as 7_1, got "x"`, "train.tsv:5: expected hallmarks of cancer (" + known + ") or none, got \"x\"\n" +
				"expected hallmarks of cancer (" + known + `) or none, got "0_1"`},
	} {
		_, errs, _ := converted(t, "hoc", dir, file)
		if d := cmp.Diff(want, errs); d != "" {
			t.Errorf("%s: %s", file, d)
		}
	}
}

// bounded converts one file, and looks at each row and error, and at what is allocated for size bytes of files in dir.
func bounded(t *testing.T, c Converter, dir, file string, size int) {
	t.Helper()
	hostile.Bounded(t, size, 2000, func() {
		for row, err := range c.Convert(t.Context(), []string{file}, Options{Split: "train"}) {
			if err != nil && !strings.HasPrefix(err.Error(), dir) {
				t.Fatalf("an error without a place: %v", err)
			}
			if err == nil && row.Check() != nil {
				t.Fatalf("%+v", row)
			}
		}
	})
}

func FuzzConcepts(f *testing.F) {
	f.Add(madeUpConcepts, madeUpNote, madeUpRelations)
	f.Add(`c="a" 1:0 1:0||t="test"`, " a", `c="a" 1:1 1:1||r="PIP"||c="a" 1:1 1:1`)
	f.Add(`c="" 1:0 1:0||t="problem"`, "", "")
	typed, pairs := lookup(f, "ner-typed"), lookup(f, "i2b2-2010")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, con, note, rel string) {
		if len(con)+len(note)+len(rel) > 1<<12 { // pairs grow with the square
			return
		}
		for name, text := range map[string]string{"n.con": con, "n.txt": note, "n.rel": rel} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		size := len(con) + len(note) + len(rel)
		bounded(t, typed, dir, filepath.Join(dir, "n.con"), size)
		bounded(t, pairs, dir, filepath.Join(dir, "n.con"), size*max(1, strings.Count(con, "\n")))
	})
}

func FuzzEvents(f *testing.F) {
	f.Add(eventsFrom(0))
	f.Add(eventsFrom(1))
	f.Add("<TEXT>a</TEXT><TAGS><EVENT/>")
	c := lookup(f, "i2b2-2012")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(dir, "n.xml")
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		bounded(t, c, dir, file, len(text))
	})
}

func FuzzAbstract(f *testing.F) {
	f.Add("a .\nb .\n", "<Resisting cell death--x ANDCellular energetics< ")
	f.Add("a .\t['inducing angiogenesis']\n", "")
	f.Add("a\t[7_1, 'x']", "x<")
	sentences, documents := lookup(f, "hoc"), lookup(f, "hoc-documents")
	dir := f.TempDir()
	for _, folder := range []string{"text", "labels"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o777); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, text, labels string) {
		file := filepath.Join(dir, "text", "1.txt")
		for path, text := range map[string]string{file: text, filepath.Join(dir, "labels", "1.txt"): labels} {
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		bounded(t, sentences, dir, file, len(text)+len(labels))
		bounded(t, documents, dir, file, len(text)+len(labels))
	})
}
