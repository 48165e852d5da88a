package metrics

import (
	"slices"
	"strings"
	"testing"
)

func TestChoice(t *testing.T) {
	drugs := []string{"Aspirin", "Tamoxifen", "Aspirin and clopidogrel", "None of the above"}
	germs := []string{"E. coli", "C. difficile", "B. cereus", "S. aureus"}
	blood := []string{"B", "A", "AB", "O"}
	numbers := []string{"-5", "5", ".5", "5"}
	for _, c := range []struct {
		options []string
		answer  string
		want    int // -1 for none
	}{
		// letters
		{drugs, "B", 1}, {drugs, " B\n", 1}, {drugs, "B.", 1}, {drugs, "(B)", 1}, {drugs, "B)", 1}, {drugs, "[B]", 1},
		{drugs, "B:", 1}, {drugs, "**B**", 1}, {drugs, "**B.** Tamoxifen", 1}, {drugs, "\"B\"", 1}, {drugs, "b", 1},
		{drugs, "b)", 1}, {drugs, "(b)", 1}, {drugs, "Option B", 1}, {drugs, "option b", 1}, {drugs, "Answer B", 1},
		{drugs, "B. Tamoxifen", 1}, {drugs, "B - Tamoxifen", 1}, {drugs, "B Because it binds.", 1}, {drugs, "B.Tamoxifen", -1},
		{drugs, "B: it blocks the receptor", 1}, {drugs, "B\n\nQuestion: next one\nA. foo", 1}, {drugs, "(B) Tamoxifen\n", 1},
		{drugs, "A, which is an old drug", 0}, {drugs, "B\nB\nB", 1},
		// no letters
		{drugs, "", -1}, {drugs, "   ", -1}, {drugs, "A patient with", -1}, {drugs, "a patient", -1}, {drugs, "E", -1},
		{drugs, "BC", -1}, {drugs, "B-cell lymphoma", -1}, {drugs, "A's", -1}, {drugs, "b.i.d. dosing", -1}, {drugs, "I think so", -1},
		{drugs, "B is wrong", -1}, {drugs, "B?", -1}, {drugs, "(B", -1}, {drugs, "a because", -1}, {drugs, "D.C. is a city", -1},
		// several
		{drugs, "A or B", -1}, {drugs, "A and B", -1}, {drugs, "A, B", -1}, {drugs, "A/B", -1}, {drugs, "A & C", -1}, {drugs, "A - B", -1},
		{drugs, "(A) and (B)", -1}, {drugs, "A. Aspirin B. Tamoxifen C. Aspirin and clopidogrel", -1}, {drugs, "A; B", -1},
		{drugs, "A. Aspirin\nB. Tamoxifen\nC. Aspirin and clopidogrel", -1}, {drugs, "(A) Aspirin (B) Tamoxifen", -1},
		{drugs, "A. an old drug\nB. a newer one", -1}, {drugs, "A, E", -1}, {drugs, "A. Tamoxifen", -1}, {drugs, "A: Tamoxifen.", -1},
		{drugs, "Both A and B are correct", -1}, {drugs, "Neither A nor B is correct", -1},
		// texts
		{drugs, "Tamoxifen", 1}, {drugs, "tamoxifen.", 1}, {drugs, "Aspirin", 0}, {drugs, "aspirin  and\nclopidogrel", 2},
		{drugs, "Aspirin and clopidogrel, both daily", 2}, {drugs, "Aspirin, daily", 0}, {drugs, "Aspirin daily", -1},
		{drugs, "None of the above", 3}, {drugs, "Tamoxifen because it binds", 1}, {drugs, "Tamoxifen should be avoided", -1},
		{drugs, "Not tamoxifen", -1}, {drugs, "Paracetamol", -1},
		// statements
		{drugs, "The answer is B", 1}, {drugs, "The answer is B.", 1}, {drugs, "The correct answer is (B).", 1},
		{drugs, "Answer: B", 1}, {drugs, "answer: b", 1}, {drugs, "The best choice is tamoxifen.", 1},
		{drugs, "It binds the receptor.\nSo the answer is: B. Tamoxifen", 1}, {drugs, "Final answer: **B**", 1},
		{drugs, "(A) is an old drug.\n(B) binds.\nThe answer is (B).", 1}, {drugs, "The answer is A. No, the answer is B.", -1},
		{drugs, "B. The answer is A. No, the answer is C.", -1},
		{drugs, "The answer is not A.", -1}, {drugs, "The answer is not A. The answer is B.", 1}, {drugs, "The answer is A or B", -1},
		{drugs, "The answer is a drug", -1}, {drugs, "B is correct", 1}, {drugs, "Option B is the correct answer.", 1},
		{drugs, "B is incorrect", -1}, {drugs, "I doubt that B is correct", -1}, {drugs, "The answer is Option (B)", 1},
		{drugs, "Answer: The answer is B", 1}, {drugs, "The answer is E.", -1}, {drugs, "Answer: B\nAnswer: B", 1},
		// texts that look like letters
		{germs, "C. difficile", 1}, {germs, "C. difficile infection", -1}, {germs, "C", 2}, {germs, "C. B. cereus", 2},
		{germs, "B. C. difficile", 1}, {germs, "The answer is E. coli.", 0}, {germs, "B. cereus", 2}, {germs, "A. E. coli", 0},
		{blood, "A", -1}, {blood, "AB", 2}, {blood, "O", 3}, {blood, "A. B", 0}, {blood, "B: A", 1}, {blood, "D", 3}, {blood, "A+", -1},
		{numbers, "-5", 0}, {numbers, ".5", 2}, {numbers, "5", -1}, {numbers, "D", 3}, {numbers, "B. 5", 1},
		{numbers, "-5.5", -1}, {numbers, "-5:1", -1}, {numbers, "-5, or so", 0},
		{nil, "A", -1}, {[]string{"", ""}, "B", 1}, {[]string{"", ""}, "", -1},
	} {
		got, ok := Choice(c.answer, c.options)
		if !ok {
			got = -1
		}
		if got != c.want {
			t.Errorf("%q of %q: %d, want %d", c.answer, c.options, got, c.want)
		}
	}
}

func labels(t testing.TB, aliases map[string]string, names ...string) *Labels {
	t.Helper()
	l, err := NewLabels(names, aliases)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOneLabel(t *testing.T) {
	yes := labels(t, nil, "yes", "no", "maybe")
	nli := labels(t, map[string]string{"entails": "Entailment"}, "Contradiction", "Neutral", "Entailment")
	relations := labels(t, map[string]string{"None": "No Relations"}, "TrAP", "TrIP", "No Relations", "Positive", "Negative")
	for _, c := range []struct {
		labels       *Labels
		answer, want string // "" for none
	}{
		{yes, "yes", "yes"}, {yes, "Yes.", "yes"}, {yes, " YES\n", "yes"}, {yes, "**Yes**", "yes"}, {yes, "\"yes\"", "yes"}, {yes, "(yes)", "yes"},
		{yes, "Yes, it does.", "yes"}, {yes, "No. It does not.", "no"}, {yes, "No\nYes\nYes", "no"}, {yes, "No because it failed", "no"},
		{yes, "Maybe - more trials are needed", "maybe"}, {yes, "- no", "no"}, {yes, "yes (p < 0.05)", "yes"},
		{yes, "The answer is yes.", "yes"}, {yes, "Answer: no", "no"}, {yes, "I think so. The answer is maybe", "maybe"},
		{yes, "No effect is known, but the answer is yes.", "yes"}, {yes, "The answer would be: no", "no"},
		{yes, "", ""}, {yes, "No effect was seen", ""}, {yes, "nothing", ""}, {yes, "yes or no", ""}, {yes, "yes, no or maybe", ""}, {yes, "yes/no", ""},
		{yes, "Yes, yes", "yes"}, {yes, "It does, yes", ""}, {yes, "The answer is not yes", ""}, {yes, "The answer is yes. The answer is no.", ""},
		{yes, "yesterday", ""}, {yes, "no-one", ""}, {yes, "The answer is unclear", ""},
		{nli, "Entailment", "Entailment"}, {nli, "entails", "Entailment"}, {nli, "The relation is neutral", "Neutral"},
		{nli, "Relationship: Contradiction", "Contradiction"}, {nli, "The answer is an entailment.", "Entailment"}, {nli, "Neutral/Entailment", ""},
		{nli, "Contradiction, Neutral, or Entailment", ""}, {nli, "Label: entailment; it follows.", "Entailment"},
		{relations, "No Relations", "No Relations"}, {relations, "no relations.", "No Relations"}, {relations, "None", "No Relations"},
		{relations, "No Relation", ""}, {relations, "Relation: TrAP", "TrAP"}, {relations, "trap", "TrAP"}, {relations, "Positive results", ""},
		{relations, "No Relations: they stand apart", "No Relations"},
	} {
		got, ok := c.labels.One(c.answer)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.answer, got, ok, c.want)
		}
	}
}

func TestManyLabels(t *testing.T) {
	hoc := labels(t, nil, "Resisting cell death (CD)", "Evading growth suppressors (GS)", "Sustaining proliferative signaling (PS)", "a, b", "a")
	for _, c := range []struct {
		answer, want string // labels joined by |
		unknown      int
		valid        bool
	}{
		{"Resisting cell death (CD)", "Resisting cell death (CD)", 0, true},
		{"resisting cell death (CD), Evading growth suppressors (GS).", "Resisting cell death (CD)|Evading growth suppressors (GS)", 0, true},
		{"Evading growth suppressors (GS), Resisting cell death (CD)", "Resisting cell death (CD)|Evading growth suppressors (GS)", 0, true},
		{"- Resisting cell death (CD)\n- Evading growth suppressors (GS)\n", "Resisting cell death (CD)|Evading growth suppressors (GS)", 0, true},
		{"1. Resisting cell death (CD)\r\n2. Evading growth suppressors (GS)", "Resisting cell death (CD)|Evading growth suppressors (GS)", 0, true},
		{"Resisting cell death (CD) and Evading growth suppressors (GS)", "Resisting cell death (CD)|Evading growth suppressors (GS)", 0, true},
		{"a, b, a", "a, b|a", 0, true}, {"a,b", "a", 1, true}, {"a; a; a", "a", 0, true},
		{"The labels are: a, Resisting cell death (CD)", "Resisting cell death (CD)|a", 0, true},
		{"Answer: a. The rest of it, which says b, is left out.", "a", 0, true}, {"a\n\nQuestion: a, b", "a", 0, true},
		{"a (as it says, more or less), zzz", "a", 2, true}, {"a: it says so, Resisting cell death (CD)", "Resisting cell death (CD)|a", 0, true},
		{"zzz", "", 1, false}, {"a, zzz", "a", 1, true}, {"", "", 0, false}, {",;.", "", 0, false}, {"ab", "", 1, false},
		{"None", "", 0, true}, {"none.", "", 0, true}, {"None, zzz", "", 1, false}, {"a, None", "a", 1, true}, {"None of these", "", 1, false},
		{"Resisting cell death", "", 1, false}, {"The answer is none", "", 0, true},
	} {
		got := hoc.Many(c.answer, "None")
		if s := strings.Join(got.Labels, "|"); s != c.want || got.Unknown != c.unknown || got.Valid != c.valid {
			t.Errorf("%q: %q, %d unknown, valid %v; want %q, %d, %v", c.answer, s, got.Unknown, got.Valid, c.want, c.unknown, c.valid)
		}
	}
	if got := hoc.Many("None", ""); got.Valid || got.Unknown != 1 {
		t.Errorf("None without a text for it: %+v", got)
	}
}

func TestNewLabelsTellsWhatIsWrong(t *testing.T) {
	_, err := NewLabels([]string{"Yes", "yes.", "**"}, map[string]string{"y": "yup", "YES": "yes."})
	wants(t, err, `"yes." could be two`, `"**" has nothing but`, `"y" is to stand for "yup"`, `"YES" could be two`)
	_, err = NewLabels(nil, nil)
	wants(t, err, "no labels")
}

func TestTags(t *testing.T) {
	tokens := strings.Fields("the gene : the protein of the")
	known := func(tag string) bool { return tag == "B" || tag == "I" || tag == "O" }
	for _, c := range []struct{ answer, want string }{
		{"the : O\ngene : B\n: : O\nthe : I\nprotein : I\nof : O\nthe : O", "O B O I I O O"},
		{"the : O\nthe : B\nprotein : I\nof : O\nthe : B", "O O O B I O B"},
		{"gene : X\n  protein:B \nzzz : B\nnothing\nof :", "O O O O B O O"},
		{"zzz : B\nthe : B\ngene : I\n: : B\nthe : O\nprotein : B\nof : O\nthe : O\nmore : B", "B I B O B O O"},
		{"", "O O O O O O O"},
	} {
		lines, _ := ParseTags(c.answer)
		aligned, _ := AlignTags(tokens, lines, known)
		if got := strings.Join(aligned, " "); got != c.want {
			t.Errorf("%q: %s, want %s", c.answer, got, c.want)
		}
	}
	for _, c := range []struct{ tokens, answer, want string }{
		{"a b", "b : B\na : B", "O B"}, // as long as the other way; the first line goes first
		{"a b", strings.Repeat("x : B\n", 14) + "a : B\nb : B", "B B"},
		{"a b", strings.Repeat("x : B\n", 15) + "a : B\nb : B", "B O"}, // the 17th line
	} {
		lines, _ := ParseTags(c.answer)
		got, read := AlignTags(strings.Fields(c.tokens), lines, known)
		if s := strings.Join(got, " "); s != c.want || read != strings.Count(c.want, "B") {
			t.Errorf("%d lines: %s, %d read; want %s", len(lines), s, read, c.want)
		}
	}
	if lines, unread := ParseTags("a : B\nnothing\n\n : B\nb :\r\n"); len(lines) != 1 || unread != 3 {
		t.Errorf("%q, %d unread; want one line and 3", lines, unread)
	}
}

func TestRepositoryTagsAreThoseOfADictionary(t *testing.T) {
	var cases []struct{ Gold, Answer, GoldTags, Tags string }
	read(t, "testdata/repository.json", &cases)
	known := func(tag string) bool { return tag == "B" || tag == "I" || tag == "O" }
	for _, c := range cases {
		g, p := RepositoryTags(c.Gold, c.Answer, known)
		if gold, tags := strings.Join(g, " "), strings.Join(p, " "); gold != c.GoldTags || tags != c.Tags {
			t.Errorf("%q and %q: %s and %s, want %s and %s", c.Gold, c.Answer, gold, tags, c.GoldTags, c.Tags)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add("The answer is (B).", "aspirin|tamoxifen")
	f.Add("1. aspirin\n2. B and tamoxifen", "aspirin|B|tamoxifen")
	f.Add("A. C. difficile, or", "C. difficile|b|c|d")
	f.Add("A and", "aspirin|tamoxifen")
	f.Fuzz(func(t *testing.T, answer, list string) {
		options := strings.Split(list, "|")
		if len(options) > 64 || len(list)+len(answer) > 1<<12 {
			return // this test reads every option with all options
		}
		i, ok := Choice(answer, options)
		if ok && (i < 0 || i >= len(options)) {
			t.Fatalf("option %d of %d", i, len(options))
		}
		if j, again := Choice("\n "+answer+" \n", options); i != j && ok || ok != again {
			t.Errorf("space around changes %d, %v to %d, %v", i, ok, j, again)
		}
		l, err := NewLabels(options, nil)
		if err != nil {
			return
		}
		if name, ok := l.One(answer); ok && !slices.Contains(options, name) {
			t.Errorf("%q is no label", name)
		}
		for _, name := range options {
			if got, ok := l.One(name); !ok || fold(got) != fold(name) {
				t.Errorf("the label %q is read as %q, %v", name, got, ok)
			}
		}
		s := l.Many(answer, "none")
		if len(s.Labels) != len(set(s.Labels)) && len(set(options)) == len(options) || s.Unknown < 0 {
			t.Errorf("%+v", s)
		}
		if s.Valid != (len(s.Labels) > 0) && !strings.Contains(strings.ToLower(answer), "none") {
			t.Errorf("%+v of an answer without none", s)
		}
	})
}

func FuzzTags(f *testing.F) {
	f.Add("a : O\nb : B-X\n", "b : I-X\n: : O\na : B")
	f.Fuzz(func(t *testing.T, gold, answer string) {
		if len(gold)*len(answer) > 1<<20 {
			return
		}
		lines, _ := ParseTags(gold)
		var tokens, tags []string
		for _, l := range lines {
			tokens, tags = append(tokens, l.Token), append(tags, l.Tag)
		}
		known := func(tag string) bool { return slices.Contains(tags, tag) }
		if self, read := AlignTags(tokens, lines, known); !slices.Equal(self, tags) || read != len(tags) {
			t.Errorf("a text aligned with itself: %q, %d of %d", self, read, len(tags))
		}
		again, unread := ParseTags(FormatTags(lines))
		if !slices.Equal(again, lines) || unread != 0 {
			t.Errorf("written and read: %q, %d unread; was %q", again, unread, lines)
		}
		got, _ := ParseTags(answer)
		aligned, read := AlignTags(tokens, got, known)
		if len(aligned) != len(tokens) || read > min(len(tokens), len(got)) {
			t.Errorf("%d tokens: %q, %d read", len(tokens), aligned, read)
		}
		repositoryGold, repository := RepositoryTags(gold, answer, known)
		if len(repositoryGold) != len(repository) || len(repository) > 1+strings.Count(gold, "\n") {
			t.Errorf("by dictionary: %q and %q", repositoryGold, repository)
		}
		for _, mode := range []Mode{Default, Strict} {
			spans, err := mode.Spans(nil, aligned)
			end := 0
			for _, s := range spans {
				if s.Start < end || s.End <= s.Start || s.End > len(aligned) {
					t.Errorf("mode %d: spans %v of %q (%v)", mode, spans, aligned, err)
				}
				end = s.End
			}
		}
	})
}
