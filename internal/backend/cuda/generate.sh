#!/bin/sh
# Makes gen_NAME.ptx of each NAME.cu: PTX 7.4 for sm_80, which drivers from CUDA 11.4 on compile for their card. It needs
# clang (19 made what is committed) and no CUDA toolkit. ptxas.txt, which .ci/run compares, follows it: see ptxas.sh.
set -eu
cd "$(dirname "$0")"
clang=${CLANG:-clang-19}
for source in ${*:-*.cu}; do
	name=${source%.cu}
	"$clang" -x cuda "$source" --cuda-device-only --cuda-gpu-arch=sm_80 -nocudainc -nocudalib -Xclang -target-feature -Xclang +ptx74 \
		-std=c++17 -O3 -ffp-contract=off -fno-ident -Wall -Werror -S -o "gen_$name.ptx"
done
