// Command lora-data makes instruction data and shows it as a model sees it. "lora-data tokenize" turns text into token ids
// and back (tokenize.go), "lora-data preview" shows the rows of a data set with what is learnt of them (preview.go),
// "lora-data convert" makes instruction rows of a corpus (convert.go), "lora-data mix" assembles a training file from such
// rows (mix.go).
package main

import (
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
)

// commandLine is what the flags are parsed into.
type commandLine struct {
	Convert  convert  `cmd:"" help:"Turn a corpus into instruction rows."`
	Tokenize tokenize `cmd:"" help:"Turn text into token ids, or ids into text, a line at a time."`
	Mix      mixing   `cmd:"" help:"Assemble a training file from corpora, by a recipe."`
	Preview  preview  `cmd:"" help:"Show rows as the model will see them."`
}

var program = cli.Program{Name: "lora-data", About: "Makes instruction data, and shows it as a model sees it.", Defaults: dataset.Flags()}

func main() { program.Main(&commandLine{}) }
