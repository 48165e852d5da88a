// Command lora-data makes instruction data and shows it as a model sees it. "lora-data tokenize" turns text into token ids
// and back (tokenize.go), "lora-data preview" shows the rows of a data set with what is learnt of them (preview.go),
// "lora-data convert" makes instruction rows of a corpus (convert.go), "lora-data mix" assembles a training file from such
// rows (mix.go). "lora-data generate" has a model write rows (generate.go), "lora-data classify" asks one for the category of
// each (classify.go), "lora-data stats" tells what is in a file of them (stats.go).
package main

import (
	"github.com/biolora/biolora/internal/cli"
	"github.com/biolora/biolora/internal/dataset"
)

// commandLine is what the flags are parsed into.
type commandLine struct {
	Classify classify `cmd:"" help:"Ask a model for the category of each row."`
	Convert  convert  `cmd:"" help:"Turn a corpus into instruction rows."`
	Generate generate `cmd:"" help:"Have a model write instruction rows, in the way of BioInstruct."`
	Tokenize tokenize `cmd:"" help:"Turn text into token ids, or ids into text, a line at a time."`
	Mix      mixing   `cmd:"" help:"Assemble a training file from corpora, by a recipe."`
	Preview  preview  `cmd:"" help:"Show rows as the model will see them."`
	Stats    stats    `cmd:"" help:"Tell what is in files of instruction rows."`
}

var program = cli.Program{Name: "lora-data", About: "Makes instruction data, and shows it as a model sees it.", Defaults: dataset.Flags()}

func main() { program.Main(&commandLine{}) }
