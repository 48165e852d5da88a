//go:build unix

package hostile

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/safetensors"
	"github.com/biolora/biolora/lora"
)

// train starts a run without an end in p, calls change once it has made a step, and returns how it ended.
func train(t *testing.T, p *place, change func(run *os.Process)) (code int, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), slack*deadline)
	defer cancel()
	cmd := p.start(ctx, "lora-train --model model --data rows.jsonl --out out --max-steps 100000000 --learning-rate 1e-4")
	pipe, err := cmd.StderrPipe()
	p.must(err)
	p.must(cmd.Start())
	var text strings.Builder
	changed := false
	for s := bufio.NewScanner(pipe); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "step ") {
			text.WriteString(s.Text() + "\n")
		} else if !changed {
			changed = true
			change(cmd.Process)
		}
	}
	cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		t.Errorf("signal %v", status.Signal())
	}
	return cmd.ProcessState.ExitCode(), text.String()
}

// A checkpoint that changes under a run ends it with an error; what was learnt is saved.
func TestChangedDuringTraining(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	for name, c := range map[string]struct {
		change func(path string) error
		want   string
	}{
		"cut short":  {func(path string) error { return os.Truncate(path, 4096) }, "model.safetensors"},
		"empty":      {func(path string) error { return os.Truncate(path, 0) }, "model.safetensors"},
		"written to": {writeAt, "model.safetensors changed while it was in use: 27216 bytes of "},
		"written again": {func(path string) error {
			data, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, data, 0o600))
		}, "model.safetensors"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			code, stderr := train(t, p, func(*os.Process) { p.must(c.change(p.path(weightsFile))) })
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := lines[len(lines)-1]
			if code != 1 || !strings.HasPrefix(last, "lora-train: step ") || !strings.Contains(last, c.want) || !strings.Contains(last, "while it was in use") {
				t.Errorf("exit status %d\n%s\nwant %s", code, stderr, c.want)
			}
			if strings.Contains(stderr, "goroutine") {
				t.Errorf("a trace of the stack:\n%s", stderr)
			}
			if !strings.Contains(last, "(the adapter of step ") {
				t.Errorf("what was learnt is not mentioned: %s", last)
			}
			if _, err := lora.Read(p.path("out")); err != nil {
				t.Errorf("what was learnt is not there: %v", err)
			}
		})
	}
}

func writeAt(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte{1}, 20000); err != nil {
		return err
	}
	return f.Close()
}

// Another file of the checkpoint's name does not matter to who has the first one open, nor does having no name at all.
func TestReplacedDuringTraining(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	for name, change := range map[string]func(path string) error{
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			code, stderr := train(t, p, func(run *os.Process) {
				p.must(change(p.path(weightsFile)))
				time.Sleep(50 * time.Millisecond) // for a few more steps
				p.must(run.Signal(os.Interrupt))
			})
			if code != 3 || strings.Contains(stderr, "in use") {
				t.Errorf("exit status %d\n%s", code, stderr)
			}
		})
	}
}

// large replaces the model by one of zeros, whose bytes take no place on the disk, and the adapter by one for it.
func (p *place) large() {
	const vocab, hidden, inner, layers = 4000, 1024, 4096, 8
	p.edit(configFile, `"vocab_size": 61`, fmt.Sprintf(`"vocab_size": %d`, vocab))
	p.edit(configFile, `"hidden_size": 24`, fmt.Sprintf(`"hidden_size": %d`, hidden))
	p.edit(configFile, `"intermediate_size": 34`, fmt.Sprintf(`"intermediate_size": %d`, inner))
	p.edit(configFile, `"num_hidden_layers": 2`, fmt.Sprintf(`"num_hidden_layers": %d`, layers))
	var header []string
	at := 0
	add := func(name string, shape ...int) {
		size := 2
		for _, d := range shape {
			size *= d
		}
		header = append(header, fmt.Sprintf(`%q:{"dtype":"F16","shape":%s,"data_offsets":[%d,%d]}`, name, strings.ReplaceAll(fmt.Sprint(shape), " ", ","), at, at+size))
		at += size
	}
	add("model.embed_tokens.weight", vocab, hidden)
	add("lm_head.weight", vocab, hidden)
	add("model.norm.weight", hidden)
	var branches []safetensors.Source
	for i := range layers {
		layer := fmt.Sprintf("model.layers.%d.", i)
		add(layer+"input_layernorm.weight", hidden)
		add(layer+"post_attention_layernorm.weight", hidden)
		for _, m := range []string{"q", "k", "v", "o"} {
			add(layer+"self_attn."+m+"_proj.weight", hidden, hidden)
			name := "base_model.model." + layer + "self_attn." + m + "_proj.lora_"
			branches = append(branches, safetensors.Source{Name: name + "A.weight", DType: numeric.F32, Shape: []int{2, hidden}, Data: make([]byte, 8*hidden)},
				safetensors.Source{Name: name + "B.weight", DType: numeric.F32, Shape: []int{hidden, 2}, Data: make([]byte, 8*hidden)})
		}
		add(layer+"mlp.gate_proj.weight", inner, hidden)
		add(layer+"mlp.up_proj.weight", inner, hidden)
		add(layer+"mlp.down_proj.weight", hidden, inner)
	}
	text := "{" + strings.Join(header, ",") + "}"
	p.write(weightsFile, string(binary.LittleEndian.AppendUint64(nil, uint64(len(text)))), text)
	p.must(os.Truncate(p.path(weightsFile), int64(8+len(text)+at)))
	p.must(safetensors.WriteFile(p.path(loraFile), branches, nil))
}

// A merge whose checkpoint is cut short ends with an error and leaves nothing.
func TestChangedDuringMerge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it builds the commands")
	}
	p := newPlace(t)
	p.large()
	ctx, cancel := context.WithTimeout(t.Context(), slack*deadline)
	defer cancel()
	cmd := p.start(ctx, commands["merge"])
	var stderr strings.Builder
	cmd.Stderr = &stderr
	p.must(cmd.Start())
	for writing := false; !writing && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		filepath.WalkDir(p.path("out"), func(path string, e fs.DirEntry, err error) error {
			if err == nil && strings.Contains(e.Name(), "safetensors") {
				writing = true
			}
			return nil
		})
	}
	p.must(os.Truncate(p.path(weightsFile), 1<<20))
	cmd.Wait()
	want := " is gone: the file was cut short while it was in use, from 284862592 bytes to 1048576\n"
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.HasSuffix(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit status %d\n%s\nwant %s", code, &stderr, want)
	}
	if _, err := os.Stat(p.path("out")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}
