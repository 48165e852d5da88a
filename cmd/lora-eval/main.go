// Command lora-eval scores models and adapters. "lora-eval run" has them answer tasks that are given as instruction rows,
// or takes answers that exist, and writes results, a report and a table (run.go). "lora-eval matrix" trains
// and scores a grid of models, subsets of the data and seeds (matrix.go).
package main

import "github.com/biolora/biolora/internal/cli"

// commandLine is what the flags are parsed into.
type commandLine struct {
	Run    run   `cmd:"" help:"Ask models the rows of tasks and score their answers."`
	Matrix study `cmd:"" help:"Train models on subsets of the data, score each, and compare."`
}

var program = cli.Program{
	Name: "lora-eval", About: "Scores models and adapters on tasks that are given as instruction rows.",
	Stopped:  "; the answers so far are kept, and the same command goes on behind them",
	Defaults: defaults(),
}

func main() { program.Main(&commandLine{}) }
