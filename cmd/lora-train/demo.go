package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/testdata/demo"
)

// demoDir is the folder of the output directory that holds the demo's model and data.
const demoDir = "demo"

// demoTokens is the length of an answer of the demo, at most.
const demoTokens = 48

// demoNames are the demo's files in the output directory.
func demoNames() []string {
	var names []string
	_ = fs.WalkDir(demo.FS(), ".", func(name string, d fs.DirEntry, err error) error { // embedded: it cannot fail
		if err == nil && !d.IsDir() {
			names = append(names, demoDir+"/"+name)
		}
		return err
	})
	return names
}

// demo trains the embedded model on the embedded rows, and shows one answer before and after.
func (s *session) demo(ctx context.Context) error {
	if err := s.out.check(); err != nil {
		return err
	}
	err := s.out.claim()
	if err == nil {
		err = s.openDemo(ctx)
	}
	if err != nil {
		s.out.undo()
		return err
	}
	fmt.Fprintln(s.stderr, "The demo: a tiny LLaMA learns to answer biomedical instructions. Nothing it says is medical advice.\n"+
		"lora-train --model DIR --data FILE trains your own; lora-train --help lists all flags.")
	fmt.Fprintln(s.stderr)
	before, err := s.answer(ctx)
	if err != nil {
		s.out.undo()
		return err
	}
	if _, err := s.train(ctx); err != nil {
		return err
	}
	after, err := s.answer(ctx)
	if err != nil {
		return err
	}
	show := func(what, text string) {
		fmt.Fprintf(s.stdout, "%-11s %s\n", what, strings.ReplaceAll(text, "\n", "\\n"))
	}
	fmt.Fprintln(s.stdout)
	show("question", demo.Example.Instruction+" "+demo.Example.Input)
	show("before", before)
	show("after", after)
	show("wanted", demo.Example.Output)
	return nil
}

// openDemo writes the demo's files into the output directory and opens them.
func (s *session) openDemo(ctx context.Context) error {
	dir, data, err := demo.Write(filepath.Join(s.out.path, demoDir))
	if err != nil {
		return err
	}
	text, err := fs.ReadFile(demo.FS(), demo.Config)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	var file Settings
	given, err := decodeConfig(demo.Config, text, &file)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	for _, key := range given {
		if !s.Given[key] {
			s.take([]string{key}, &file)
		}
	}
	s.Settings.Model, s.Data = dir, []string{data}
	return s.prepare(ctx)
}

// answer generates the answer to the demo's question.
func (s *session) answer(ctx context.Context) (string, error) {
	var prompt, stop []int32
	if bos, ok := s.tokenizer.BOS(); ok {
		prompt = append(prompt, bos)
	}
	prompt = append(prompt, s.tokenizer.Encode(s.data.Template.Prompt(demo.Example.Instruction, demo.Example.Input))...)
	if eos, ok := s.tokenizer.EOS(); ok {
		stop = append(stop, eos)
	}
	out, err := s.model.Generate(ctx, [][]int32{prompt}, model.GenerateOptions{MaxNewTokens: demoTokens, Stop: stop})
	if ctx.Err() != nil {
		return "", errInterrupted
	}
	if err != nil {
		return "", fmt.Errorf("the demo's answer: %w", err)
	}
	return strings.TrimSpace(s.tokenizer.Decode(slices.Concat(out...))), nil
}
