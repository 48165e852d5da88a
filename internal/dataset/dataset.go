// Package dataset is how commands are told of instruction data: the settings that say how rows are read and what is
// learnt of them, with the same names, defaults and help wherever rows are read.
package dataset

import (
	"reflect"

	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Rows say how rows are read and made into tokens. The tags name a flag; the key in YAML is the same name with
// underscores.
type Rows struct {
	Template         string   `name:"template" group:"Data" placeholder:"NAME|FILE" help:"Prompt template: alpaca, medtuned, chat (the chat template of the model), or a YAML file."`
	FieldInstruction string   `name:"field-instruction" group:"Data" placeholder:"NAME" help:"Name of the instruction field in the rows."`
	FieldInput       string   `name:"field-input" group:"Data" placeholder:"NAME" help:"Name of the input field."`
	FieldOutput      string   `name:"field-output" group:"Data" placeholder:"NAME" help:"Name of the output field."`
	FieldPrompt      string   `name:"field-prompt" group:"Data" placeholder:"NAME" help:"Name of the prompt field."`
	FieldCompletion  string   `name:"field-completion" group:"Data" placeholder:"NAME" help:"Name of the completion field."`
	EmptyInput       []string `name:"empty-input" sep:"none" group:"Data" placeholder:"TEXT" help:"One more input that counts as none. May be repeated."`
	ChatTemplate     string   `name:"chat-template" group:"Data" placeholder:"NAME|FILE" help:"Chat template of conversations: the name of one that the tokenizer has, or a Jinja file. Without it: the tokenizer's own."`
	SystemPrompt     string   `name:"system-prompt" group:"Data" placeholder:"TEXT" help:"System message of conversations that have none."`
	AssistantTurns   string   `name:"assistant-turns" group:"Data" placeholder:"all|last" help:"Which of the assistant's turns in a conversation are learnt."`
	TemplateDate     string   `name:"template-date" group:"Data" placeholder:"DATE" help:"The time that chat templates are told, such as 2026-01-31 or 2026-01-31T12:00:00Z. Without it: now."`
	NoSpecialInText  bool     `name:"no-special-in-text" group:"Data" help:"Special tokens that are written in rows stay text; only templates make special tokens."`
	SkipBadRows      bool     `name:"skip-bad-rows" group:"Data" help:"Leave out rows that cannot be used, and count them."`
	TrainOnInputs    bool     `name:"train-on-inputs" group:"Data" help:"Learn the prompt too, not only the response."`
	MaxSeqLength     int      `name:"max-seq-length" group:"Data" placeholder:"N" help:"Cut longer rows on the right. 0: the smaller of 1024 and max_position_embeddings."`
}

// Defaults are the settings where nothing else is said: those of the packages that read and train.
func Defaults() Rows {
	t := train.Defaults()
	return Rows{Template: instruct.Alpaca.Name, AssistantTurns: turns[0], TrainOnInputs: t.TrainOnInputs, MaxSeqLength: t.MaxSeqLength}
}

// Flags are the defaults by the names of the flags, but for those that are zero and no number.
func Flags() map[string]any {
	d := reflect.ValueOf(Defaults())
	m := map[string]any{}
	for i := range d.NumField() {
		if v := d.Field(i); !v.IsZero() || v.CanInt() || v.CanFloat() {
			m[d.Type().Field(i).Tag.Get("name")] = v.Interface()
		}
	}
	return m
}

// Options puts the settings that training knows into o.
func (r *Rows) Options(o *train.Options) {
	o.TrainOnInputs, o.MaxSeqLength = r.TrainOnInputs, r.MaxSeqLength
}
