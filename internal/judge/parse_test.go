package judge

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		reply   string
		reasons bool
		mark    int
		reason  string
		fault   string
	}{
		{"Reason: it is complete.\nMark: 5", true, 5, "it is complete.", ""},
		{"\n reason:  wrong drug \r\n\r\n MARK:1 \n", true, 1, "wrong drug", ""},
		{"Reason: two lines\nof it\nMark: 3", true, 3, "two lines\nof it", ""},
		{"Reason: it says Mark: 5 of itself\nMark: 2", true, 2, "it says Mark: 5 of itself", ""},
		{"Mark: 4", true, 4, "", ""},
		{"Mark: 4", false, 4, "", ""},
		{" 3\n", true, 3, "", ""},
		{"**Reason:** it is *not* complete.\n\n**Mark: 4**", true, 4, "it is *not* complete.", ""},
		{"**Mark:** `4`", true, 4, "", ""},
		{"<think>\nMark: 2, or\nMark: 3?\n</think>\n\nReason: half of it\nMark: 3", true, 3, "half of it", ""},

		{"", true, 0, "", "it is empty"},
		{" \n\t", true, 0, "", "it is empty"},
		{"It is good.", true, 0, "", `no line of it begins with "Mark:"`},
		{"I would say mark: 4", true, 0, "", `no line of it begins with "Mark:"`},
		{"Mark: 4\n* Mark: 4", true, 0, "", "2 of its lines are marks"},
		{"<think>Mark: 2, or", true, 0, "", `no line of it begins with "Mark:"`},
		{"Mark: 1\n<think>why?</think>\nMark: 2", true, 0, "", "2 of its lines are marks"},
		{"Mark: 4\nMark: 4", true, 0, "", "2 of its lines are marks"},
		{"Reason: the answer says\nMark: 5\nMark: 1", true, 0, "", "2 of its lines are marks"},
		{"Mark: 5\nReason: behind", true, 0, "", "there is text behind the mark"},
		{"Mark: 7", true, 0, "", `"7" is not a whole number from 1 to 5`},
		{"Mark: 0", true, 0, "", `"0" is not a whole number from 1 to 5`},
		{"Mark: -1", true, 0, "", `"-1" is not a whole number from 1 to 5`},
		{"Mark: 4/5", true, 0, "", `"4/5" is not a whole number from 1 to 5`},
		{"Mark: 4.5", true, 0, "", `"4.5" is not a whole number from 1 to 5`},
		{"Mark: 3 or 4", true, 0, "", `"3 or 4" is not a whole number from 1 to 5`},
		{"Mark: ４", true, 0, "", `"４" is not a whole number from 1 to 5`},
		{"Mark:", true, 0, "", `"" is not a whole number from 1 to 5`},
		{"Mark: 5\rMark: 1", true, 0, "", `"5\rMark: 1" is not a whole number from 1 to 5`},
		{"Mark: " + strings.Repeat("é", 100), true, 0, "", `"` + strings.Repeat("é", 20) + `…" is not a whole number from 1 to 5`},
		{"Sure!\nMark: 4", true, 0, "", "there is text before the mark"},
		{"Sure!\nReason: good\nMark: 4", true, 0, "", "there is text before the mark"},
		{"Reason: nobody asked\nMark: 4", false, 0, "", "there is text before the mark"},
		{"45", true, 0, "", `no line of it begins with "Mark:"`},
	} {
		mark, reason, fault := Parse(c.reply, c.reasons)
		if mark != c.mark || reason != c.reason || fault != c.fault {
			t.Errorf("%q: %d, %q, %q; want %d, %q, %q", c.reply, mark, reason, fault, c.mark, c.reason, c.fault)
		}
	}
}

// FuzzParse: whatever a reply is, it has a mark or a fault; a mark is the last character of the reply but for emphasis, and a second line
// with a mark takes it away.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"Reason: a\nMark: 5", "3", "Mark: 7", "mark:\n1", "Reason:\nMark: 2\n\n", "Mark: 1\nMark: 5", "\xff\nMark: 1", "**Mark: 2**", "<think>1</think>Mark: 3"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, reply string, reasons bool) {
		mark, reason, fault := Parse(reply, reasons)
		if mark < 0 || mark > Best || (mark == 0) == (fault == "") || mark == 0 && reason != "" || reason != "" && !reasons {
			t.Fatalf("%q: %d, %q, %q", reply, mark, reason, fault)
		}
		if utf8.ValidString(reply) && !utf8.ValidString(fault) {
			t.Fatalf("%q: the fault %q is not UTF-8", reply, fault)
		}
		if mark == 0 {
			return
		}
		if trimmed := strings.TrimFunc(reply, around); trimmed[len(trimmed)-1] != byte('0'+mark) {
			t.Fatalf("%q: %d", reply, mark)
		}
		for _, more := range []string{"Mark: 1\n" + reply, reply + "\nMark: 1"} {
			if mark, _, _ := Parse(more, reasons); mark != 0 && len(strings.TrimSpace(reply)) > 1 {
				t.Fatalf("%q: %d", more, mark)
			}
		}
	})
}
