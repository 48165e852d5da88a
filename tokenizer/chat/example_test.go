package chat_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/biolora/biolora/tokenizer/chat"
)

func Example() {
	t, err := chat.Parse("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
	if err != nil {
		panic(err)
	}
	spans, err := t.RenderTurns(context.Background(), chat.Input{Messages: []json.RawMessage{
		json.RawMessage(`{"role": "user", "content": "Two beta blockers?"}`),
		json.RawMessage(`{"role": "assistant", "content": "Metoprolol and atenolol."}`),
	}})
	if err != nil {
		panic(err)
	}
	for _, s := range spans {
		fmt.Printf("%d %v %q\n", s.Message, s.Assistant, s.Text)
	}
	// Output:
	// 0 false "<|im_start|>user\nTwo beta blockers?<|im_end|>\n"
	// 1 false "<|im_start|>assistant\n"
	// 1 true "Metoprolol and atenolol.<|im_end|>\n"
}
