package gemm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what processors and kernels of the field have; on others the advice is of no use, and does no harm.
const hugePage = 2 << 20

// adviseHuge asks for huge pages where buf covers them. It is advice: what the kernel makes of it is its own affair.
func adviseHuge(buf []uint32) {
	if len(buf) == 0 {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), 4*len(buf))
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (hugePage - 1))
	if whole := (len(b) - skip) / hugePage * hugePage; whole > 0 {
		_ = unix.Madvise(b[skip:skip+whole], unix.MADV_HUGEPAGE)
	}
}
