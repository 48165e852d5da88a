#include "weight.h"

struct EmbedArgs {
	Weight table;
	float *x;
	const i32 *tokens;
	i32 ld_x;
};

// x[t] = table[tokens[t]]: a block has a row, a thread eight neighbours of it at a time.
KERNEL(embed, EmbedArgs, 256) {
	const Weight &w = a.table;
	i64 row = a.tokens[BLOCK_X];
	float *x = a.x + (i64)BLOCK_X * a.ld_x;
	for (i32 c = THREAD * 8; c < w.cols; c += THREADS * 8) {
		float v[8];
		if (w.kind < WEIGHT_NF4) {
			i64 at = row * w.ld + c;
			load8_of(v, w.kind, (const char *)w.data + (w.kind == WEIGHT_F32 ? 4 * at : 2 * at), w.cols - c);
		} else {
			UNROLL
			for (i32 e = 0; e < 8; e++) v[e] = c + e < w.cols ? weight_element(w, row, c + e) : 0.0f;
		}
		store8(x + c, v, false, w.cols - c);
	}
}
