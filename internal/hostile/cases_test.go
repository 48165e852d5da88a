//go:build unix

package hostile

import (
	"fmt"
	"os"
	"strings"
)

const (
	weightsFile = "model/model.safetensors"
	indexFile   = "model/model.safetensors.index.json"
	configFile  = "model/config.json"
	tokens      = "model/tokenizer.json"
	adapterFile = "adapter/adapter_config.json"
	loraFile    = "adapter/adapter_model.safetensors"
	targets     = "\"target_modules\": [\n    \"k_proj\",\n    \"o_proj\",\n    \"q_proj\",\n    \"v_proj\"\n  ]"
)

// deep is JSON nested n times.
func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

var cases = []hostile{
	// Weights.
	{"header of 2^64 bytes", "train merge info", func(p *place) { p.write(weightsFile, "\xff\xff\xff\xff\xff\xff\xff\xff{}") },
		"header of 18446744073709551615 bytes, at most 100000000 are allowed"},
	{"header of 100 MB in a file of 10 bytes", "train info", func(p *place) { p.write(weightsFile, "\x00\xe1\xf5\x05\x00\x00\x00\x00{}") },
		"header of 100000000 bytes, but only 2 follow its length"},
	{"header nested deeply", "train info", func(p *place) { p.write(weightsFile, tensors(`{"a":`, deep(1_000_000), "}")...) }, `header: tensor "a": line 1, byte 5: want '{', got '['`},
	{"header with millions of dimensions", "info", func(p *place) {
		p.write(weightsFile, tensors(`{"a":{"dtype":"U8","shape":[0`, strings.Repeat(",0", 20_000_000), `],"data_offsets":[0,0]}}`)...)
	}, `tensor "a": shape: line 1, byte 157: more than 64 dimensions`},
	{"header with a million metadata keys", "info", func(p *place) {
		p.write(weightsFile, tensors(`{"__metadata__":{`, many(1_100_000, func(i int) string { return fmt.Sprintf(`"%08x":""`, i) }), `}}`)...)
	}, `header: line 1, byte 917532: more than 65536 keys in __metadata__`},
	{"header with many tensors", "info", func(p *place) {
		p.write(weightsFile, tensors("{", many(300_000, func(i int) string { return fmt.Sprintf(`"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i) }), "}")...)
	}, `header: line 1, byte 14610169: more than 262144 tensors`},
	{"header with a million unknown fields", "info", func(p *place) {
		p.write(weightsFile, tensors(`{"a":{"x":{`, many(1_100_000, func(i int) string { return fmt.Sprintf(`"%08x":0`, i) }), `}}}`)...)
	}, `header: tensor "a": line 1, byte 13631499: an object of more than 1048576 keys`},
	{"a long name", "info", func(p *place) {
		p.write(weightsFile, tensors(`{"`, strings.Repeat("n", 20_000_000), `":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`)...)
	}, `nnn": data ends at byte 1, but the file holds 0: it is cut off`},
	{"a long number", "info", func(p *place) {
		p.write(weightsFile, tensors(`{"a":{"dtype":"U8","shape":[`, strings.Repeat("9", 20_000_000), `],"data_offsets":[0,1]}}`)...)
	}, "does not fit 64 bits"},
	{"a name of control characters", "train info", func(p *place) {
		p.write(weightsFile, tensors(`{"\u001b]0;owned\u0007\r":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`)...)
	}, `tensor "\x1b]0;owned\a\r": data ends at byte 1, but the file holds 0: it is cut off`},
	{"weights of another model", "train merge", func(p *place) { p.write(weightsFile, tensors("{}")...) }, `tensor model.embed_tokens.weight is missing, want shape [61 24]`},
	{"weights cut short", "train info merge", func(p *place) { p.write(weightsFile, p.read(weightsFile)[:20000]) }, "it is cut off"},
	{"weights are a directory", "train info merge", func(p *place) { p.directory(weightsFile) }, "not a regular file"},
	{"weights are a pipe", "train info merge", func(p *place) { p.pipe(weightsFile) }, "not a regular file"},
	{"weights are a device", "train info merge", func(p *place) { p.link(weightsFile, "/dev/zero") }, "not a regular file"},
	{"weights are a link to themselves", "train info merge", func(p *place) { p.link(weightsFile, "model.safetensors") }, "too many levels of symbolic links"},
	{"weights are a link to nothing", "train info merge", func(p *place) { p.link(weightsFile, "/no/where") }, "model.safetensors is a symbolic link to /no/where, which is not there"},
	{"an index that leads out", "train info merge", func(p *place) {
		p.remove(weightsFile)
		p.write(indexFile, `{"weight_map":{"a":"../../../etc/passwd"}}`)
	}, `"../../../etc/passwd" is not a plain file name`},
	{"an index of many files", "train info", func(p *place) {
		p.remove(weightsFile)
		p.write(indexFile, `{"weight_map":{`, many(50_000, func(i int) string { return fmt.Sprintf(`"%x":"%x.safetensors"`, i, i) }), "}}")
	}, `weight_map: 50000 files, at most 10000 are plausible`},
	{"an index nested deeply", "info", func(p *place) { p.remove(weightsFile); p.write(indexFile, deep(1_000_000)) }, "nested deeper than 64"},
	{"an index is a pipe", "train info", func(p *place) { p.remove(weightsFile); p.pipe(indexFile) }, "not a regular file"},
	{"an index of a gigabyte", "info", func(p *place) {
		p.remove(weightsFile)
		p.write(indexFile, "{}")
		p.must(os.Truncate(p.path(indexFile), 1<<30))
	}, "1073741824 bytes, at most"},
	{"a pickle that runs a program", "train info merge", func(p *place) {
		p.remove(weightsFile)
		p.write("model/pytorch_model.bin", "cposix\nsystem\n(S'touch out-of-the-pickle'\ntR.")
	}, "refused: posix.system"},
	{"a pickle of a gigabyte of nothing", "info", func(p *place) {
		p.remove(weightsFile)
		p.write("model/pytorch_model.bin", "\x80\x02")
		p.must(os.Truncate(p.path("model/pytorch_model.bin"), 1<<30))
	}, "refused: unknown instruction 0x00"},
	{"GGUF of 2^63 keys", "file", func(p *place) {
		p.write("file.gguf", "GGUF\x03\x00\x00\x00", strings.Repeat("\x00", 8), strings.Repeat("\xff", 8))
	}, `file.gguf: byte 16: 18446744073709551615 keys, at most 65536 are allowed`},
	{"GGUF of nothing", "file", func(p *place) { p.write("file.gguf", "") }, `file.gguf: the file is empty`},
	{"a file of zeros", "file", func(p *place) { p.write("file.gguf", ""); p.must(os.Truncate(p.path("file.gguf"), 1<<30)) }, `file.gguf: not a GGUF file: byte 0: it begins with "\x00\x00\x00\x00", want "GGUF"`},

	// config.json.
	{"config nested deeply", "train info merge", func(p *place) { p.write(configFile, deep(1_000_000)) }, "nested deeper than 64"},
	{"config of a gigabyte", "train info", func(p *place) { p.must(os.Truncate(p.path(configFile), 1<<30)) }, "1073741824 bytes, at most"},
	{"config is a pipe", "train info preview", func(p *place) { p.pipe(configFile) }, "not a regular file"},
	{"config is a device", "train info preview", func(p *place) { p.link(configFile, "/dev/zero") }, "not a regular file"},
	{"config with a key twice", "train info", func(p *place) { p.edit(configFile, "{", `{"vocab_size":61,`) }, `key "vocab_size" is there twice`},
	{"config with 2^62 layers", "train", func(p *place) {
		p.edit(configFile, `"num_hidden_layers": 2`, `"num_hidden_layers": 4611686018427387904`)
	}, `config.json: num_hidden_layers: want an integer from 1 to 10000, got 4611686018427387904`},
	{"config with a billion layers", "train", func(p *place) { p.edit(configFile, `"num_hidden_layers": 2`, `"num_hidden_layers": 1000000000`) }, `config.json: num_hidden_layers: want an integer from 1 to 10000, got 1000000000`},
	{"config with 2^62 words", "train", func(p *place) { p.edit(configFile, `"vocab_size": 61`, `"vocab_size": 4611686018427387904`) }, `config.json: vocab_size: want an integer from 1 to 2147483647, got 4611686018427387904`},
	{"config with a negative size", "train", func(p *place) { p.edit(configFile, `"hidden_size": 24`, `"hidden_size": -24`) }, `config.json: hidden_size: want an integer from 1 to 2147483647, got -24`},
	{"config with an infinite number", "train", func(p *place) { p.edit(configFile, "1e-05", "1e400") }, `config.json: rms_norm_eps: 1e400 is too large`},
	{"config of another model", "train", func(p *place) { p.edit(configFile, `"llama"`, `"\u001b[31mgpt2"`) }, `config.json: model_type: want "llama" or "mistral", got "\x1b[31mgpt2"`},

	// Tokenizers.
	{"tokenizer nested deeply", "train tokenize preview", func(p *place) { p.write(tokens, deep(1_000_000)) }, "tokenizer.json:1 (byte 10001): not JSON: invalid character '[' exceeded max depth"},
	{"tokenizer of a gigabyte", "tokenize", func(p *place) { p.must(os.Truncate(p.path(tokens), 1<<30)) }, "1073741824 bytes"},
	{"tokenizer is a pipe", "train tokenize preview", func(p *place) { p.pipe(tokens) }, "not a regular file"},
	{"tokenizer is a device", "train tokenize preview", func(p *place) { p.link(tokens, "/dev/zero") }, "not a regular file"},
	{"tokenizer of millions of numbers", "tokenize", func(p *place) { p.write(tokens, `{"model":[0`, strings.Repeat(",0", 16_000_000), "]}") }, `tokenizer.json:1 (byte 32000012): model: want an object, got [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0...`},
	{"an empty tokenizer", "train tokenize", func(p *place) { p.write(tokens, "{}") }, `tokenizer.json:1 (byte 2): no model in the file: it is not a tokenizer.json`},

	// Adapters.
	{"adapter config nested deeply", "continue merge adapter", func(p *place) { p.write(adapterFile, deep(1_000_000)) }, "nested deeper than 64"},
	{"adapter config is a pipe", "continue merge adapter", func(p *place) { p.pipe(adapterFile) }, "not a regular file"},
	{"adapter config is a directory", "continue merge adapter", func(p *place) { p.directory(adapterFile) }, "not a regular file"},
	{"adapter with a field of control characters", "continue merge", func(p *place) {
		p.edit(adapterFile, `"r": 2`, `"r": 2, "\u001b]0;owned\u0007\u202e": 1`)
	}, `unknown field \x1b]0;owned\x07\x202e is the number 1`},
	{"adapter of rank 2^31", "continue merge", func(p *place) { p.edit(adapterFile, `"r": 2`, `"r": 2147483648`) }, `adapter_config.json: r is 2147483648, at most 1048576 is plausible`},
	{"adapter of rank 0", "continue merge", func(p *place) { p.edit(adapterFile, `"r": 2`, `"r": 0`) }, `adapter_config.json: r is 0, want 1 or more (Defaults has 16)`},
	{"adapter with alpha NaN", "continue merge adapter", func(p *place) { p.edit(adapterFile, `"lora_alpha": 5`, `"lora_alpha": NaN`) }, `adapter_config.json: line 20, byte 498: want a value, got 'N'`},
	{"adapter with alpha 1e400", "continue merge", func(p *place) { p.edit(adapterFile, `"lora_alpha": 5`, `"lora_alpha": 1e400`) }, `adapter_config.json: lora_alpha: want a number, got 1e400`},
	{"adapter with an exploding expression", "continue merge", func(p *place) { p.edit(adapterFile, targets, `"target_modules": "(.*)*(.*)*(.*)*(.*)*z"`) }, `target_modules: the expression "(.*)*(.*)*(.*)*(.*)*z", which is to match a full name, matches nothing`},
	{"adapter with an expression of many repetitions", "continue merge", func(p *place) { p.edit(adapterFile, targets, `"target_modules": "((((a{999}){999}){999}){999}){999}"`) }, `target_modules: the expression "((((a{999}){999}){999}){999}){999}", which is to match a full name, matches nothing`},
	{"adapter with a nested expression", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": "`+strings.Repeat("(", 100_000)+strings.Repeat(")", 100_000)+`"`)
	}, `(": 200000 bytes, at most 16384 are plausible`},
	{"adapter with an expression that refers back", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": "((\\w|\\.)+)+\\1!"`)
	}, "no answer for"},
	{"adapter config of 8 MB", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": [`+many(1_000_000, func(i int) string { return fmt.Sprintf(`"%x"`, i) })+"]")
	}, "adapter_config.json: 7931146 bytes, at most 4194304 are plausible"},
	{"adapter of twenty thousand targets", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": [`+many(20_000, func(i int) string { return fmt.Sprintf(`"%x"`, i) })+"]")
	}, "adapter_config.json: target_modules has 20000 names, at most 16384 are plausible"},
	{"adapter of sixteen thousand targets", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": [`+many(16_000, func(i int) string { return fmt.Sprintf(`"t%04x"`, i) })+"]")
	}, "target_modules: t0000, t0001, t0002, t0003, t0004, t0005, t0006, t0007, t0008, t0009 and 15990 more matches nothing"},
	{"adapter of twenty thousand patterns", "continue merge", func(p *place) {
		p.edit(adapterFile, `"rank_pattern": {}`, `"rank_pattern": {`+many(20_000, func(i int) string { return fmt.Sprintf(`"(a*)*%x":4`, i) })+"}")
	}, "adapter_config.json: rank_pattern has 20000 entries, at most 16384 are plausible"},
	{"adapter of large patterns", "continue merge", func(p *place) {
		p.edit(adapterFile, `"rank_pattern": {}`, `"rank_pattern": {`+many(1000, func(i int) string { return fmt.Sprintf(`"(a{500}b){2}%x":4`, i) })+"}")
	}, "with those before it too large"},
	{"adapter with a target of 100 kB", "continue merge", func(p *place) {
		p.edit(adapterFile, targets, `"target_modules": ["`+strings.Repeat("a.", 50_000)+`"]`)
	}, "target_modules has a name of 100000 bytes, at most 1024 are plausible: \"a.a.a."},
	{"adapter for a base that lies elsewhere", "continue merge", func(p *place) {
		p.edit(adapterFile, `"base_model_name_or_path": "model"`, `"base_model_name_or_path": "../../../../etc/passwd"`)
		p.edit(adapterFile, `"r": 2`, `"r": 3`)
	}, "rank 2, want 3 by the configuration"},
	{"adapter weights are a pipe", "continue merge adapter", func(p *place) { p.pipe(loraFile) }, "not a regular file"},
	{"adapter weights are a device", "continue merge adapter", func(p *place) { p.link(loraFile, "/dev/zero") }, "not a regular file"},
	{"adapter weights of another shape", "continue merge", func(p *place) { p.write(loraFile, tensors("{}")...) }, `adapter_model.safetensors: there is no tensor of a low-rank branch`},
	{"adapter in a hostile pickle", "continue merge adapter", func(p *place) {
		p.remove(loraFile)
		p.write("adapter/adapter_model.bin", "cbuiltins\nexec\n(S'x'\ntR.")
	}, "refused: builtins.exec"},

	// Data.
	{"rows are a pipe", "train preview", func(p *place) { p.pipe("rows.jsonl") }, "rows.jsonl is not a regular file"},
	{"rows are a device", "train preview", func(p *place) { p.link("rows.jsonl", "/dev/zero") }, "rows.jsonl is not a regular file"},
	{"rows are a directory", "train preview", func(p *place) { p.directory("rows.jsonl") }, "rows.jsonl is a directory: name the file in it"},
	{"rows of zeros", "train preview", func(p *place) { p.write("rows.jsonl", ""); p.must(os.Truncate(p.path("rows.jsonl"), 1<<28)) }, `rows.jsonl: the file is UTF-16 or UTF-32, or no text; it must be text in UTF-8`},
	{"rows nested deeply", "train preview", func(p *place) { p.write("rows.jsonl", `{"instruction":`, deep(1_000_000), "}") }, `rows.jsonl:1: invalid character '[' exceeded max depth at byte 10015 of the line`},
	{"rows, an array nested deeply", "train", func(p *place) { p.write("rows.jsonl", deep(1_000_000)) }, `rows.jsonl:1 (element 0): expected a JSON object, got [[[[[[`},
	{"a row of 100 MB", "train", func(p *place) { p.write("rows.jsonl", `{"instruction":"`, strings.Repeat("a", 100_000_000)) }, `rows.jsonl:1: the row has more than 67108864 bytes`},
	{"rows that are not UTF-8", "train preview", func(p *place) { p.write("rows.jsonl", "{\"instruction\":\"\xff\xfe\x1b[2J\",\"output\":\"\"}") }, `rows.jsonl:1: invalid UTF-8 at byte 16 of the row`},

	// Settings.
	{"settings that multiply", "config", func(p *place) { p.write("run.yaml", laughs()) }, "anchor"},
	{"settings nested deeply", "config", func(p *place) { p.write("run.yaml", deep(30_000)) }, "nested deeper than"},
	{"settings are a pipe", "config", func(p *place) { p.pipe("run.yaml") }, "run.yaml is not a regular file"},
	{"settings of a gigabyte", "config", func(p *place) { p.write("run.yaml", ""); p.must(os.Truncate(p.path("run.yaml"), 1<<30)) }, `run.yaml: the file has more than 65536 bytes`},
	{"a template that multiplies", "template", func(p *place) { p.write("template.yaml", laughs()) }, "anchor"},
	{"a template nested deeply", "template", func(p *place) { p.write("template.yaml", deep(30_000)) }, "nested deeper than"},
	{"a template is a pipe", "template", func(p *place) { p.pipe("template.yaml") }, "template.yaml is not a regular file"},
}

// laughs is a billion laughs in YAML.
func laughs() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		ref := fmt.Sprintf("*a%d", i-1)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(ref+", ", 10), ", "))
	}
	b.WriteString("model: *a11\nprompt_input: *a11\n")
	return b.String()
}
