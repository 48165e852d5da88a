// Command lora-export turns adapters into what other programs load, and tells what files are. "lora-export merge" adds an
// adapter to the weights of its base model and writes a Hugging Face checkpoint; "lora-export info" tells what a
// checkpoint, an adapter or one of their files is.
package main

import (
	"context"

	"github.com/biolora/biolora/internal/cli"
)

// commandLine is what the flags are parsed into.
type commandLine struct {
	Merge merge `cmd:"" help:"Add an adapter to its base model and write the result as a Hugging Face checkpoint."`
	Info  info  `cmd:"" help:"Tell what a checkpoint, an adapter or one of their files is, and what of it is not supported."`
}

var program = cli.Program{
	Name: "lora-export", About: "Turns LoRA adapters into what other programs load.", Stopped: ", nothing was written",
}

func main() { program.Main(&commandLine{}) }

// Run carries the command out.
func (c *merge) Run(ctx context.Context, s *cli.Streams) error { return c.run(ctx, s.Out, s.Err) }
