package tokenizer_test

import (
	"fmt"

	"github.com/biolora/biolora/tokenizer"
)

func Example() {
	tok, err := tokenizer.Load("../testdata/tokenizer/llama3.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	ids := tok.Encode("Name the drug.<|eot_id|>")
	var pieces []string
	for _, id := range ids {
		piece, _ := tok.Token(id)
		pieces = append(pieces, piece)
	}
	fmt.Println(pieces)
	fmt.Println(tok.Decode(ids))
	// Output:
	// [Na me Ġthe Ġd ru g . <|eot_id|>]
	// Name the drug.
}
