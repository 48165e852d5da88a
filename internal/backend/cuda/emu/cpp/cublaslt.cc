// A cublasLt for the emulated device: it checks what it is given as the documentation asks, and multiplies with loops.
#include "device.h"
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

using namespace device;

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum { Success = 0, NotInitialized = 1, InvalidValue = 7, NotSupported = 15 };
enum { R32 = 0, R16BF = 14 };

struct Layout {
	int type;
	u64 rows, cols;
	int64_t ld;
	u64 bytes() const { return ((cols - 1) * ld + rows) * (type == R16BF ? 2 : 4); }
};
struct Desc {
	int compute, scale, transA, transB;
};
struct Preference {
	u64 workspace;
	uint32_t reductions, alignment[4];
};
struct Handle {
	int unused;
};

// What the algorithm of a heuristic's result is good for; it fills cublasLtMatmulAlgo_t.
struct Algo {
	u64 shape; // of the descriptors it was made for
	u64 workspace;
	uint32_t alignment[4];
	u64 zeros[4];
};
static_assert(sizeof(Algo) == 64, "cublasLtMatmulAlgo_t has 64 bytes");
struct Result {
	Algo algo;
	size_t workspace;
	int status;
	float waves;
	int reserved[4];
};
static_assert(sizeof(Result) == 96, "cublasLtMatmulHeuristicResult_t has 96 bytes");

int no(const char *call, const std::string &why) { return refuse(InvalidValue, std::string(call) + ": " + why); }

int unsupported; // of so many products the last is not supported; 0: all are
u64 asked;

u64 shape(const Desc *d, Layout *const l[4]) {
	u64 h = 14695981039346656037ull;
	auto mix = [&](u64 v) { h = (h ^ v) * 1099511628211ull; };
	mix(d->compute), mix(d->transA), mix(d->transB);
	for (int i = 0; i < 4; i++) mix(l[i]->type), mix(l[i]->rows), mix(l[i]->cols), mix(l[i]->ld);
	return h;
}

// "" where the descriptors describe a product.
std::string check(void *desc, void *const layouts[4]) {
	if (!is(desc, "cublasLt operation")) return "not an operation";
	for (int i = 0; i < 4; i++)
		if (!is(layouts[i], "cublasLt layout")) return std::string("not a layout of ") + "ABCD"[i];
	Desc *d = (Desc *)desc;
	Layout *const *l = (Layout *const *)layouts;
	u64 m = d->transA ? l[0]->cols : l[0]->rows, k = d->transA ? l[0]->rows : l[0]->cols;
	u64 k2 = d->transB ? l[1]->cols : l[1]->rows, n = d->transB ? l[1]->rows : l[1]->cols;
	if (k != k2) return "op(A) has " + std::to_string(k) + " columns, op(B) " + std::to_string(k2) + " rows";
	for (int i = 2; i < 4; i++)
		if (l[i]->rows != m || l[i]->cols != n)
			return std::string(1, "ABCD"[i]) + " is [" + std::to_string(l[i]->rows) + ", " + std::to_string(l[i]->cols) + "], not [" + std::to_string(m) + ", " + std::to_string(n) + "]";
	if (l[0]->type != l[1]->type || l[2]->type != l[3]->type || (l[0]->type == R32 && l[3]->type != R32)) return "types that no product has";
	if (d->scale != R32 || (d->compute != 68 && d->compute != 69)) return "a type of computing that no product here has";
	if (l[0]->type == R32 && d->compute != 69) return "f32 that TF32 may compute";
	return "";
}

float value(const char *p, int type, u64 i) {
	if (type == R32) return ((const float *)p)[i];
	uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
	float f;
	memcpy(&f, &bits, 4);
	return f;
}

void store(char *p, int type, u64 i, float v) {
	if (type == R32) {
		((float *)p)[i] = v;
		return;
	}
	uint32_t u;
	memcpy(&u, &v, 4);
	((uint16_t *)p)[i] = (u & 0x7fffffffu) > 0x7f800000u ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

// op(x) [rows, cols], column after column.
std::vector<float> gather(const char *p, const Layout &l, bool trans) {
	u64 rows = trans ? l.cols : l.rows, cols = trans ? l.rows : l.cols;
	std::vector<float> v(rows * cols);
	for (u64 j = 0; j < cols; j++)
		for (u64 i = 0; i < rows; i++) v[j * rows + i] = value(p, l.type, trans ? i * l.ld + j : j * l.ld + i);
	return v;
}

} // namespace

API void emuLtUnsupported(int n) { unsupported = n, asked = 0; }

API size_t cublasLtGetVersion() { return 120103; }

API int cublasLtCreate(void **h) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	if (enter("cublasLtCreate", true)) return NotInitialized;
	*h = new Handle;
	return objects[*h] = "cublasLt handle", Success;
}

static int destroy(const char *call, void *o, const char *what) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	enter(call, false);
	if (!is(o, what)) return no(call, std::string("not a ") + what);
	objects.erase(o);
	return Success;
}

API int cublasLtDestroy(void *h) {
	int code = destroy("cublasLtDestroy", h, "cublasLt handle");
	if (!code) delete (Handle *)h;
	return code;
}
API int cublasLtMatmulDescCreate(void **d, int compute, int scale) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	*d = new Desc{compute, scale, 0, 0};
	return objects[*d] = "cublasLt operation", Success;
}
API int cublasLtMatmulDescDestroy(void *d) {
	int code = destroy("cublasLtMatmulDescDestroy", d, "cublasLt operation");
	if (!code) delete (Desc *)d;
	return code;
}
API int cublasLtMatmulDescSetAttribute(void *d, int attribute, const void *from, size_t size) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	const char *call = "cublasLtMatmulDescSetAttribute";
	if (!is(d, "cublasLt operation")) return no(call, "not an operation");
	if (size != 4 || (attribute != 3 && attribute != 4)) return no(call, "attribute " + std::to_string(attribute) + " of " + std::to_string(size) + " bytes");
	int op = *(const int *)from;
	if (op != 0 && op != 1) return no(call, "operation " + std::to_string(op));
	return (attribute == 3 ? ((Desc *)d)->transA : ((Desc *)d)->transB) = op, Success;
}
API int cublasLtMatrixLayoutCreate(void **l, int type, u64 rows, u64 cols, int64_t ld) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	if ((type != R32 && type != R16BF) || !rows || !cols || ld < (int64_t)rows)
		return no("cublasLtMatrixLayoutCreate", "[" + std::to_string(rows) + ", " + std::to_string(cols) + "] of type " + std::to_string(type) + ", " + std::to_string(ld) + " elements from a column to the next");
	*l = new Layout{type, rows, cols, ld};
	return objects[*l] = "cublasLt layout", Success;
}
API int cublasLtMatrixLayoutDestroy(void *l) {
	int code = destroy("cublasLtMatrixLayoutDestroy", l, "cublasLt layout");
	if (!code) delete (Layout *)l;
	return code;
}
API int cublasLtMatmulPreferenceCreate(void **p) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	*p = new Preference{0, 7, {256, 256, 256, 256}};
	return objects[*p] = "cublasLt preference", Success;
}
API int cublasLtMatmulPreferenceDestroy(void *p) {
	int code = destroy("cublasLtMatmulPreferenceDestroy", p, "cublasLt preference");
	if (!code) delete (Preference *)p;
	return code;
}
API int cublasLtMatmulPreferenceSetAttribute(void *o, int attribute, const void *from, size_t size) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	const char *call = "cublasLtMatmulPreferenceSetAttribute";
	if (!is(o, "cublasLt preference")) return no(call, "not a preference");
	Preference *p = (Preference *)o;
	if (attribute == 1 && size == 8) return p->workspace = *(const u64 *)from, Success;
	if (size != 4 || (attribute != 3 && (attribute < 5 || attribute > 8))) return no(call, "attribute " + std::to_string(attribute) + " of " + std::to_string(size) + " bytes");
	uint32_t v = *(const uint32_t *)from;
	if (attribute == 3) return p->reductions = v, Success;
	if (!v || v > 256 || v & (v - 1)) return no(call, "an alignment of " + std::to_string(v));
	return p->alignment[attribute - 5] = v, Success;
}

API int cublasLtMatmulAlgoGetHeuristic(void *h, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted, Result *results, int *found) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	const char *call = "cublasLtMatmulAlgoGetHeuristic";
	if (enter(call, true)) return NotInitialized;
	void *layouts[4] = {a, b, c, d};
	std::string wrong = check(desc, layouts);
	if (!is(h, "cublasLt handle")) wrong = "not a handle";
	if (!is(pref, "cublasLt preference")) wrong = "not a preference";
	if (wanted != 1) wrong = "other than one result is asked for";
	if (!wrong.empty()) return no(call, wrong);
	Preference *p = (Preference *)pref;
	if (p->reductions & ~2u) return no(call, "a reduction whose bits may vary, or which rounds");
	*found = 0;
	if (unsupported && ++asked % unsupported == 0) return NotSupported;
	*results = {};
	*found = 1;
	Algo &g = results->algo;
	g.shape = shape((Desc *)desc, (Layout *const *)layouts);
	memcpy(g.alignment, p->alignment, sizeof g.alignment);
	u64 depth = ((Desc *)desc)->transA ? ((Layout *)a)->rows : ((Layout *)a)->cols;
	g.workspace = results->workspace = depth >= 64 && p->workspace >= 4096 ? 4096 : 0;
	return Success;
}

API int cublasLtMatmul(void *h, void *desc, const float *alpha, const char *A, void *la, const char *B, void *lb, const float *beta, const char *C, void *lc,
                       char *D, void *ld, const Algo *algo, char *workspace, size_t bytes, void *stream) {
	std::lock_guard<std::recursive_mutex> lock(mutex);
	const char *call = "cublasLtMatmul";
	if (enter(call, true)) return 13;
	void *layouts[4] = {la, lb, lc, ld};
	std::string wrong = check(desc, layouts);
	if (!is(h, "cublasLt handle")) wrong = "not a handle";
	if (!wrong.empty()) return no(call, wrong);
	Desc op = *(Desc *)desc;
	if (algo->shape != shape(&op, (Layout *const *)layouts)) return no(call, "the algorithm is another product's");
	if (algo->workspace > bytes) return no(call, "a workspace of " + std::to_string(bytes) + " bytes, the algorithm needs " + std::to_string(algo->workspace));
	Layout l[4];
	std::vector<Range> uses;
	const char *at[4] = {A, B, C, D};
	for (int i = 0; i < 4; i++) {
		l[i] = *(Layout *)layouts[i];
		std::string why;
		std::string name(1, "ABCD"[i]);
		if ((u64)at[i] % algo->alignment[i]) return no(call, name + " is not aligned as was said");
		if (i == 2 && *beta == 0) continue;
		uses.push_back({(u64)at[i], l[i].bytes()});
		if (!live(uses.back(), why)) return no(call, name + ": " + why);
	}
	Range to = uses.back();
	for (int i = 0; i < 2; i++)
		if (uses[i].at < to.at + to.bytes && to.at < uses[i].at + uses[i].bytes) {
			// Columns of one buffer may be read while others are written, where they share rows.
			u64 apart = to.at > uses[i].at ? to.at - uses[i].at : uses[i].at - to.at;
			u64 width = l[3].type == R16BF ? 2 : 4;
			if (l[i].type != l[3].type || l[i].ld != l[3].ld || apart % (l[3].ld * width) < l[3].rows * width) return no(call, std::string("D overlaps ") + "AB"[i]);
		}
	if (*beta != 0 && C == D && (l[2].ld != l[3].ld)) return no(call, "C is D, but not by its rows");
	if (*beta != 0 && C != D && uses[2].at < to.at + to.bytes && to.at < uses[2].at + uses[2].bytes) return no(call, "C and D overlap");
	if (algo->workspace) {
		std::string why;
		uses.push_back({(u64)workspace, bytes});
		if ((u64)workspace % 256 || !live(uses.back(), why)) return no(call, "the workspace: " + why);
	}
	float alphaNow = *alpha, betaNow = *beta;
	u64 poison = algo->workspace;
	return enqueue(stream, call, uses, [=]() -> std::string {
		memset(workspace, 0xff, poison);
		std::vector<float> a = gather(A, l[0], op.transA), b = gather(B, l[1], op.transB);
		u64 m = l[3].rows, n = l[3].cols, k = b.size() / n;
		std::vector<float> sum(m);
		for (u64 j = 0; j < n; j++) {
			std::fill(sum.begin(), sum.end(), 0.0f);
			for (u64 q = 0; q < k; q++) {
				float f = b[j * k + q];
				const float *x = &a[q * m];
				for (u64 i = 0; i < m; i++) sum[i] += x[i] * f;
			}
			for (u64 i = 0; i < m; i++) {
				float v = alphaNow * sum[i];
				if (betaNow != 0) v += betaNow * value(C, l[2].type, j * l[2].ld + i);
				store(D, l[3].type, j * l[3].ld + i, v);
			}
		}
		return "";
	});
}
