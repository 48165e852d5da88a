package train_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/biolora/biolora/lora"
	"github.com/biolora/biolora/model"
	"github.com/biolora/biolora/testdata/demo"
	"github.com/biolora/biolora/tokenizer"
	"github.com/biolora/biolora/train"
	"github.com/biolora/biolora/train/instruct"
)

// Fine-tune the demo model on its instructions and save the adapter.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	checkpoint, rows, err := demo.Write(dir)
	if err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	m, err := model.Open(checkpoint, model.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	cfg := lora.Defaults() // r 16, alpha 32, q_proj and v_proj
	a, err := lora.Inject(m, cfg)
	if err != nil {
		log.Fatal(err)
	}
	tok, err := tokenizer.Load(checkpoint)
	if err != nil {
		log.Fatal(err)
	}
	data, err := instruct.Open(rows, instruct.Alpaca)
	if err != nil {
		log.Fatal(err)
	}
	opts := train.Defaults()
	opts.LearningRate = 3e-3
	opts.MaxSteps = 12
	res, err := train.Run(ctx, m, a, tok, data, opts)
	if err != nil {
		log.Fatal(err)
	}
	if err := a.Save(filepath.Join(dir, "adapter")); err != nil {
		log.Fatal(err)
	}
	fmt.Println("steps:", res.Steps)
	fmt.Println("a finite loss:", res.Loss > 0 && res.Loss < 100)
	// Output:
	// steps: 12
	// a finite loss: true
}
