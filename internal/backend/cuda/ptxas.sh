#!/bin/sh
# Has NVIDIA's assembler compile every gen_*.ptx for the cards of three generations, and prints what each kernel takes:
#	sh ptxas.sh PTXAS >ptxas.txt
# PTXAS is that of PyPI's nvidia-cuda-nvcc 13.5.37, which needs no card; another version counts registers otherwise. It
# fails where a kernel spills registers to memory.
set -eu
ptxas=$1
cd "$(dirname "$0")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for ptx in gen_*.ptx; do
	for arch in sm_80 sm_90 sm_100; do
		"$ptxas" "-arch=$arch" -v "$ptx" -o /dev/null >>"$log" 2>&1 || { cat "$log" >&2; exit 1; }
	done
done
awk '
	BEGIN { print "kernel card registers spilled-bytes stack-bytes static-shared-bytes"; fflush() }
	/Compiling entry function/ { gsub("\047", ""); kernel = $7; card = $9 }
	/bytes stack frame/ { stack = $1; spilled = $5 + $9 }
	/Used [0-9]+ registers/ {
		match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
		shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
		print kernel, card, registers, spilled, stack, shared | "LC_ALL=C sort -k1,1 -k2.4,2n"
		if (spilled > 0) { print kernel " spills " spilled " bytes on " card > "/dev/stderr"; failed = 1 }
	}
	END { close("LC_ALL=C sort -k1,1 -k2.4,2n"); exit failed }
' "$log"
