package neon

import "testing"

// The words that LLVM's assembler writes for the same instructions.
func TestEncodings(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{FSQRT.On(17, 3), "6ea1fa23"},
		{FNEG.On(17, 3), "6ea0fa23"},
		{FRINTN.On(17, 3), "4e218a23"},
		{FCVTNS.On(17, 3), "4e21aa23"},
		{SCVTF.On(17, 3), "4e21da23"},
		{FCVTLH.On(17, 3), "0e217a23"},
		{FCVTL2H.On(17, 3), "4e217a23"},
		{FCVTL.On(17, 3), "0e617a23"},
		{FCVTL2.On(17, 3), "4e617a23"},
		{SHLL.On(17, 3), "2e613a23"},
		{SHLL2.On(17, 3), "6e613a23"},
		{SXTLB.On(17, 3), "0f08a623"},
		{SXTL2B.On(17, 3), "4f08a623"},
		{SXTL.On(17, 3), "0f10a623"},
		{SXTL2.On(17, 3), "4f10a623"},
		{HALVE.On(17, 3), "4f3f0623"},
		{NEGATIVE.On(17, 3), "4ea0aa23"},
		{FADD.On(21, 9, 30), "4e35d53e"},
		{FSUB.On(21, 9, 30), "4eb5d53e"},
		{FMUL.On(21, 9, 30), "6e35dd3e"},
		{FDIV.On(21, 9, 30), "6e35fd3e"},
		{FMAX.On(21, 9, 30), "4e35f53e"},
		{FMIN.On(21, 9, 30), "4eb5f53e"},
		{FCMEQ.On(21, 9, 30), "4e35e53e"},
		{FCMGT.On(21, 9, 30), "6eb5e53e"},
		{FADDP.On(21, 9, 30), "6e35d53e"},
		{FADDD.On(21, 9, 30), "4e75d53e"},
		{FMULD.On(21, 9, 30), "6e75dd3e"},
		{USHL.On(21, 9, 30), "6e35453e"},
		{FMLALane(29, 0, 17, 3), "4f9d1223"},
		{FMLALane(29, 1, 17, 3), "4fbd1223"},
		{FMLALane(29, 2, 17, 3), "4f9d1a23"},
		{FMLALane(15, 3, 0, 31), "4faf181f"},
		{Load(17, 9, 3), "3ce96a23"},
		{Store(3, 17, 9), "3ca96a23"},
	} {
		if got := c.got[len("WORD $0x"):][:8]; got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}
