package cuda

func init() { faults = append(faults, attentionFaults...) }

var attentionFaults = []fault{
	{"attention.cu", "rope", "v[e] = y[e] * c[e] + x[e] * s[e]", "v[e] = y[e] * c[e] - x[e] * s[e]", "TestAttentionShapes/f32/136"},
	{"attention.cu", "rope", "h < a.heads + a.kv_heads", "h < a.heads", "TestAttentionShapes/bf16/80"},
	{"attention.cu", "rope", "(i64)a.places[2 * row + 1] * a.ld_cache", "(i64)row * a.ld_cache", "TestCache"},
	{"attention.cu", "attention_combine", "sum += exp2_approx", "sum = exp2_approx", "TestAttentionDecode/f32/6"},
	{"attention.cu", "attention_combine", "a.part[at * a.dim + c]", "a.part[at * a.dim]", "TestAttentionDecode/bf16/128"},
	{"attention.cu", "flash_forward_64", "sum[i] * shrink + part", "sum[i] + part", "TestAttentionShapes/bf16/64"},
	{"attention.cu", "flash_forward_64", "sees(see, column_of(j, e))", "sees(see, column_of(j, e) - 1)", "TestAttentionShapes/bf16/16/tree"},
	{"attention.cu", "flash_forward_64", "SYNC();\n\t\tif (active) scores", "if (active) scores", "TestAttentionShapes/bf16/64"},
	{"attention.cu", "flash_forward_64", "SYNC();\n\t\tif (more) {\n\t\t\tconst KeyRows<bf16> from = key_rows<bf16>(a, next, kv);\n\t\t\tload_rows<D, FLASH_ROWS>(v", "if (more) {\n\t\t\tconst KeyRows<bf16> from = key_rows<bf16>(a, next, kv);\n\t\t\tload_rows<D, FLASH_ROWS>(v", "TestAttentionShapes/bf16/16/tree"},
	{"attention.cu", "flash_forward_128", "o[j][2 * i + 1] *= shrink", "o[j][2 * i + 1] *= 1", "TestAttentionShapes/bf16/128"},
	{"attention.cu", "flash_forward_128", "top[i] + log2_approx(sum[i])", "top[i] - log2_approx(sum[i])", "TestAttentionShapes/bf16/80"},
	{"attention_backward.cu", "flash_backward_queries_64", "column_of(j, e) == column ?", "column_of(j, e) == column + 1 ?", "TestAttentionOneKey"},
	{"attention_backward.cu", "flash_backward_queries_64", "g[j][e] - delta[e >> 1]", "g[j][e] + delta[e >> 1]", "TestAttentionShapes/bf16/64"},
	{"attention_backward.cu", "flash_backward_queries_128", "k + 32 * h * D);\n\t\t\t\tUNROLL", "k);\n\t\t\t\tUNROLL", "TestAttentionShapes/bf16/128"},
	{"attention_backward.cu", "flash_backward_queries_128", "dq, a.scale, true, rows", "dq, a.scale, false, rows", "TestAttentionShapes/bf16/80"},
	{"attention_backward.cu", "flash_backward_keys_64", "position > query.position - a.window", "position > query.position - a.window - 1", "TestAttentionShapes/bf16/24/window"},
	{"attention_backward.cu", "flash_backward_keys_64", "if (WARP == 0 && next < units) stats", "if (LANE == 0 && next < units) stats", "TestAttentionShapes/bf16/16/tree"},
	{"attention_backward.cu", "flash_backward_keys_64", "a.seers[kt.first + (next >> 1)]", "a.seers[kt.first]", "TestAttentionShapes/bf16/16/tree"},
	{"attention_backward.cu", "flash_backward_keys_128", "weigh<D, 4>(dk, dp, q)", "weigh<D, 4>(dk, s, q)", "TestAttentionShapes/bf16/128"},
	{"attention_backward.cu", "flash_backward_keys_128", "dp[j][e] - query.delta", "dp[j][e]", "TestAttentionShapes/bf16/80"},
	{"attention_general.cu", "general_forward", "sum[i] = sum[i] * shrink + s[i]", "sum[i] = sum[i] * shrink + s[0]", "TestAttentionShapes/f32/24/window"},
	{"attention_general.cu", "general_forward", "SYNC_WARP();\n}\n\ntemplate <class A> DEVICE void general_forward", "}\n\ntemplate <class A> DEVICE void general_forward", "TestAttentionShapes/f32/64"},
	{"attention_general.cu", "general_backward_queries", "if (column >= 0 && column < kt.n) own[i] =", "if (column == 0) own[i] =", "TestAttentionOneKey"},
	{"attention_general.cu", "general_backward_queries", "s[i] *= dp[i] - delta[i]", "s[i] *= delta[i]", "TestAttentionShapes/bf16/136"},
	{"attention_general.cu", "general_backward_keys", "general_weigh(dv, p, dy, a.dim)", "general_weigh(dv, ds, dy, a.dim)", "TestAttentionShapes/bf16/256"},
	{"attention_general.cu", "general_backward_keys", "delta = a.delta[packed_at(t, LANE, a.heads, head, 1)]", "delta = 0", "TestAttentionShapes/f32/24/window"},
}
