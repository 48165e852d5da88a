package cuda

func init() {
	faults = append(faults,
		fault{"embed.cu", "embed", "row * w.ld + c", "row * w.cols + c", "TestOracle/.*/embed/BF16"},
		fault{"embed.cu", "embed", "weight_element(w, row, c + e)", "weight_element(w, row, c)", "TestOracle/.*/embed/nf4"},
		fault{"gather.cu", "scatter_add", "(BLOCK_Y * THREADS + THREAD) * 8", "(BLOCK_X * THREADS + THREAD) * 8", "TestOracle/.*/embed/train"},
		fault{"gather.cu", "scatter_add", "sum[e] += v[e]", "sum[e] = v[e]", "TestOracle/.*/embed/train"},
	)
}
