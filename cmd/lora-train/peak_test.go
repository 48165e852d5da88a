//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
)

// wide writes a checkpoint whose layers keep a lot for their size, and rows for it: some 200 MB at 1,200 tokens.
func wide(t *testing.T) (dir, rows string) {
	t.Helper()
	const d, ff, layers, vocab, tokens, n = 128, 2048, 8, 500, 150, 16
	dir = t.TempDir()
	config, err := json.Marshal(map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": vocab,
		"hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers, "num_attention_heads": 4, "hidden_act": "silu",
		"max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": false})
	if err != nil {
		t.Fatal(err)
	}
	var ts []safetensors.Source
	r := rand.New(rand.NewPCG(1, 2))
	add := func(name string, shape ...int) {
		size := 2
		for _, s := range shape {
			size *= s
		}
		data := make([]byte, size)
		for i := 0; i < size; i += 2 {
			bits := numeric.F32ToBF16(float32(r.Float64()-0.5) / 8)
			data[i], data[i+1] = byte(bits), byte(bits>>8)
		}
		ts = append(ts, safetensors.Source{Name: name, DType: numeric.BF16, Shape: shape, Data: data})
	}
	add("model.embed_tokens.weight", vocab, d)
	for i := range layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		for _, name := range []string{"q", "k", "v", "o"} {
			add(p+"self_attn."+name+"_proj.weight", d, d)
		}
		add(p+"mlp.gate_proj.weight", ff, d)
		add(p+"mlp.up_proj.weight", ff, d)
		add(p+"mlp.down_proj.weight", d, ff)
		add(p+"input_layernorm.weight", d)
		add(p+"post_attention_layernorm.weight", d)
	}
	add("model.norm.weight", d)
	add("lm_head.weight", vocab, d)
	if err := safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), ts, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for range n {
		ids, labels := make([]int, tokens), make([]int, tokens)
		for i := range ids {
			ids[i], labels[i] = r.IntN(vocab), -100
			if i > tokens/2 {
				labels[i] = ids[i]
			}
		}
		line, _ := json.Marshal(map[string][]int{"input_ids": ids, "labels": labels})
		lines.Write(append(line, '\n'))
	}
	return dir, writeFile(t, "rows.jsonl", lines.String())
}

// The peak that is planned is the one that a process of its own has, pages of mapped files apart.
func TestPlannedPeak(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux says how much memory of its own a process has")
	}
	if testing.Short() {
		t.Skip("-short: short runs are those of the race detector, which needs memory of its own")
	}
	dir, rows := wide(t)
	for _, policy := range []string{"all", "some:3", "none"} {
		args := []string{"--model", dir, "--data", rows, "--max-steps", "2", "--target-modules", "all-linear", "--activation-policy", policy}
		cmd, stdout := process(t, append(args, "--plan")...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, stdout)
		}
		planned := peakOf(t, stdout.String())
		cmd, stdout = process(t, args...)
		measured, err := watched(cmd.Start, cmd.Wait, func() int { return cmd.Process.Pid })
		if err != nil {
			t.Fatalf("%v\n%s", err, stdout)
		}
		ratio := planned / measured
		t.Logf("policy %s: %.0f MiB planned, %.0f measured (%+.1f %%)", policy, planned, measured, 100*(ratio-1))
		if ratio < 1/1.15 || ratio > 1.15 {
			t.Errorf("policy %s: %.0f MiB are planned, %.0f measured", policy, planned, measured)
		}
	}
}

// peakOf is the peak in a plan, in MiB.
func peakOf(t *testing.T, plan string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^peak +([\d.]+) MiB`).FindStringSubmatch(plan)
	if m == nil {
		t.Fatalf("no peak in MiB:\n%s", plan)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// watched runs a process and returns the most memory of its own that it was seen to have, in MiB.
func watched(start, wait func() error, pid func() int) (most float64, err error) {
	if err := start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- wait() }()
	own := regexp.MustCompile(`RssAnon:\s+(\d+) kB`)
	for {
		select {
		case err := <-done:
			return most, err
		case <-time.After(2 * time.Millisecond):
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid())) // gone at the end
		if m := own.FindSubmatch(status); m != nil {
			v, _ := strconv.ParseFloat(string(m[1]), 64)
			most = max(most, v/1024)
		}
	}
}
