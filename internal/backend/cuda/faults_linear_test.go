package cuda

import (
	"fmt"
	"os"
	"strings"
)

func init() {
	faults = append(faults, productFaults...)
	faults = append(faults, linearFaults...)
}

var productFaults = []fault{
	{"product.cu", "product_large", "n0 = in / height * bn;", "n0 = in / tall * bn;", "TestProduct"},
	{"product.cu", "product_narrow", "product_bf16<S, false, true>(a)", "product_bf16<S, false, false>(a)", "TestProduct"},
	{"product.cu", "product_flat", "product_bf16<S, true, false>(a)", "product_bf16<S, false, false>(a)", "TestProduct"},
	{"product.cu", "product_f32", "product_f32<true, true>(a)", "product_f32<true, false>(a)", "TestProduct"},
	{"product.cu", "product_sum", "sum[e] += v[e]", "sum[e] = v[e]", "TestProductSlices"},
	{"product.cu", "product_row", "k < a.k; k += 256", "k + 256 < a.k; k += 256", "TestProduct"},
	{"product.cu", "product_rows", "put8(o, r, col, 1 + second, v)", "put8(o, r, col, 2, v)", "TestProduct"},
	inTile("product_large", "SYNC(); // this step's panels are there", "// this step's panels are there", "TestProductOrders"),
	inTile("product_large", "copy_async_wait<TILE_STAGES - 2>()", "copy_async_wait<TILE_STAGES - 1>()", "TestProduct"),
	inTile("product_large", "left >= 8 && aligned", "left >= 8", "TestProduct"),
	inTile("product_flat", "if (e < left) w[e / 2]", "w[e / 2]", "TestProduct"),
	inTile("product_narrow", "SYNC(); // the panels, or the rows before, are read", "", "TestProductOrders"),
	inTile("product_f32", "SYNC(); // and who is here", "// and who is here", "TestProductOrders"),
	inTile("product_f32", "v[e] = e < left ? at[e] : 0.0f", "v[e] = at[e]", "TestProduct"),
}

var linearFaults = []fault{
	{"dequantise.cu", "convert", "a.from_kind == WEIGHT_F32 ? 4 * at : 2 * at", "4 * at", "TestWeightValues"},
	{"dequantise.cu", "dequantise_nf4", "codes >> (8 * k + 4) & 15", "codes >> 8 * k & 15", "TestWeightValues"},
	{"dequantise.cu", "dequantise_int8", "words[2 + k / 4]", "words[k / 4]", "TestWeightValues"},
	{"dequantise.cu", "product_nf4", "col + j * second", "col", "TestLinears/f32"},
	{"dequantise.cu", "product_int8", "1 + second, v", "1, v", "TestLinears/bf16"},
	{"linear.cu", "linear_start", "v[e] += w[e]", "v[e] = w[e]", "TestOracle/f32/linear/add"},
	{"linear.cu", "drop", "col / 4 + g,", "col / 4,", "TestDrop"},
	{"linear.cu", "linear_branches_f32", "n0 / 4 + THREAD % 16,", "THREAD % 16,", "TestLinears/f32"},
	{"linear.cu", "linear_branches_bf16", "odd ? r[0] : r[2]", "odd ? r[2] : r[0]", "TestLinears/bf16"},
	{"linear.cu", "linear_branches_bf16", "total[i][j][e] = fma(keep,", "total[i][j][e] = fma(1.0f,", "TestLinears/bf16"},
	{"linear.cu", "linear_branches", "a.half != 0, 1, a.beta}", "a.half != 0, 1, 0}", "TestLinears/f32"},
	inHeader("linear.cu", "philox.h", "drop", "i < 10;", "i < 9;", "TestDrop"),
	{"swiglu.cu", "swiglu", "g[e] * sigmoid(g[e]) * u[e]", "sigmoid(g[e]) * u[e]", "TestOracle/f32/gateup"},
	{"swiglu.cu", "swiglu_backward", "(1 + x * (1 - s))", "(1 + x * s)", "TestOracle/f32/gateup"},
}

func inTile(kernel, from, to, test string) fault {
	return inHeader("product.cu", "tile.h", kernel, from, to, test)
}

// inHeader is a fault in a header that file includes: its text stands in the place of the include then.
func inHeader(file, header, kernel, from, to, test string) fault {
	if onCard() { // where there need not be sources, and no fault is planted
		return fault{}
	}
	text, err := os.ReadFile(header)
	if err != nil {
		panic(err)
	}
	if n := strings.Count(string(text), from); n != 1 {
		panic(fmt.Sprintf("%s has %q %d times", header, from, n))
	}
	changed := strings.Replace(strings.Replace(string(text), "#pragma once", "", 1), from, to, 1)
	return fault{file, kernel, fmt.Sprintf("#include %q", header), changed, test}
}
