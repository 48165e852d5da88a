package gemm

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tilePermission asks the kernel to let this process use the tile registers. It grants that once for all threads, present
// and future (Documentation/arch/x86/xstate.rst). Without it, the first instruction on tiles would end the process.
var tilePermission = sync.OnceValue(func() error {
	const requestPermission, tileData = 0x1023, 18 // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
	if _, _, errno := unix.RawSyscall(unix.SYS_ARCH_PRCTL, requestPermission, tileData, 0); errno != 0 {
		return fmt.Errorf("arch_prctl(ARCH_REQ_XCOMP_PERM): %w", errno)
	}
	return nil
})
