package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/biolora/biolora/internal/ask"
	"github.com/biolora/biolora/internal/bioinstruct"
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/memory"
	"github.com/biolora/biolora/internal/rows"
	"github.com/biolora/biolora/internal/visible"
	"github.com/biolora/biolora/model"
)

// onThisMachine are the flags of a model that is not behind an endpoint.
type onThisMachine struct {
	Adapter     string `group:"Local model" placeholder:"DIR" help:"Adapter of the model, a PEFT directory."`
	Template    string `name:"prompt-template" group:"Local model" placeholder:"NAME|FILE" help:"Prompt template: alpaca, medtuned, chat, or a YAML file. Without it: chat where the model has a chat template, else alpaca."`
	Base        string `group:"Local model" placeholder:"FORMAT" help:"Quantise the model's linears: nf4 or int8. Without it: none."`
	Compute     string `group:"Local model" enum:",f32,bf16" default:"" placeholder:"f32|bf16" help:"Arithmetic of the products. Without it: the faster one."`
	Device      string `group:"Local model" default:"auto" placeholder:"auto|cpu|cuda|cuda:N" help:"Where to compute: on the CPU, or on an NVIDIA card, the N-th that its driver shows, from 0. auto: on a card where there is one that can be used."`
	Threads     int    `group:"Local model" placeholder:"N" help:"Threads. Without it: one for each CPU. A card has no use for them, so that auto is the CPU."`
	MemoryLimit string `name:"memory-limit" group:"Local model" placeholder:"SIZE" help:"Memory that may be taken, such as 12GiB; on a card, of its own. Without it: what is free."`
	CacheDir    string `name:"cache-dir" group:"Local model" placeholder:"DIR" help:"Where converted and quantised weights are kept."`
}

func (m *onThisMachine) given() []string {
	return flagsGiven([]flagGiven{
		{"adapter", m.Adapter != ""},
		{"prompt-template", m.Template != ""},
		{"base", m.Base != ""},
		{"compute", m.Compute != ""},
		{"device", m.Device != "auto"},
		{"threads", m.Threads != 0},
		{"memory-limit", m.MemoryLimit != ""},
		{"cache-dir", m.CacheDir != ""},
	})
}

func (m *onThisMachine) system(path string) (local.System, error) {
	s := local.System{Model: path, Adapter: m.Adapter, Template: m.Template}
	s.Options = model.Options{Base: m.Base, Compute: m.Compute, Device: m.Device, Threads: m.Threads, CacheDir: m.CacheDir}
	if _, err := model.ParseBase(m.Base); m.Base != "" && err != nil {
		return s, cli.Usagef("--base: %w", err)
	}
	if err := model.CheckDevice(m.Device); err != nil {
		return s, cli.Usagef("--device: %w", err)
	}
	if m.Threads < 0 {
		return s, cli.Usagef("--threads %d: want 1 or more", m.Threads)
	}
	if m.MemoryLimit == "" {
		return s, nil
	}
	var err error
	if s.Options.MemoryLimit, err = memory.Parse(m.MemoryLimit); err != nil {
		return s, cli.Usagef("--memory-limit: %w", err)
	}
	return s, nil
}

// weigh asks a model of this machine.
func (c *classify) weigh(ctx context.Context, s *cli.Streams, l bioinstruct.Labelling, all []rows.Row) (got *bioinstruct.Labels, err error) {
	sys, err := c.system(c.Model)
	if err != nil {
		return nil, err
	}
	id, err := sys.Check()
	if err != nil {
		return nil, err
	}
	l.Identity, l.Batch, l.Model = &id, 1, filepath.Base(filepath.Clean(c.Model))
	if c.Adapter != "" {
		l.Model += " with " + filepath.Base(filepath.Clean(c.Adapter))
	}
	var converting *bar
	sys.Options.Progress = func(done, total int64) {
		const mega = 1e6
		if converting == nil {
			converting = newBar(s.Err, int(total/mega), "MB of weights converted")
		}
		converting.set(int(done / mega))
	}
	sys.Options.Note = func(text string) { fmt.Fprintln(s.Err, visible.Text(text)) }
	m, err := local.Open(ctx, sys)
	if converting != nil {
		converting.end()
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var b *bar
	progress := func(t ask.Totals) {
		if b == nil {
			there := answers(t)
			if there > 0 {
				fmt.Fprintf(s.Err, "%d of %d answers are there already\n", there, asked(l, all))
			}
			b = newBar(s.Err, asked(l, all)-there, "rows")
		}
		b.set(t.Asked)
	}
	got, err = bioinstruct.ClassifyLocally(ctx, c.Journal, m, l, all, bioinstruct.LocalOptions{Together: c.Batch, Progress: progress})
	if b != nil {
		b.end()
	}
	return got, err
}

// asked is how many rows are to be asked about.
func asked(l bioinstruct.Labelling, all []rows.Row) (n int) {
	for i := range all {
		if l.All || all[i].Category == "" {
			n++
		}
	}
	return n
}
