package weights

import (
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/numeric"
	"github.com/biolora/biolora/internal/quant"
	"github.com/biolora/biolora/internal/strictjson"
)

func TestInMemory(t *testing.T) {
	memoryLimit = 0 // there is no file to put anything into, whatever its size
	t.Cleanup(func() { memoryLimit = MemoryLimit })
	tensors := []Tensor{
		{Name: "w", DType: numeric.BF16, Shape: []int{4, 64}, Data: make([]byte, 512)},
		{Name: "g", DType: numeric.F32, Shape: []int{3}, Data: make([]byte, 12)},
	}
	c, err := InMemory("here", strictjson.NewObject(), tensors)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Held() != 524 || c.Bytes() != 524 || len(c.Files()) != 0 {
		t.Errorf("%d bytes in memory of %d, files %v", c.Held(), c.Bytes(), c.Files())
	}
	if err := c.Prepare(t.Context(), PrepareOptions{Quant: quant.NF4, Quantised: []string{"w"}}); err != nil {
		t.Fatal(err)
	}
	w, _ := c.Tensor("w")
	if w.Quant != quant.NF4 || len(c.Caches()) != 0 || c.Held() != int64(len(w.Codes))+12 {
		t.Errorf("quantised: %v, caches %v, %d bytes in memory beside %d of codes", w.Quant, c.Caches(), c.Held(), len(w.Codes))
	}
}

func TestInMemoryOfOtherSizes(t *testing.T) {
	_, err := InMemory("here", strictjson.NewObject(), []Tensor{
		{Name: "w", DType: numeric.BF16, Shape: []int{4, 64}, Data: make([]byte, 510)},
		{Name: "g", DType: numeric.F32, Shape: []int{3}, Data: make([]byte, 12)},
		{Name: "g", DType: numeric.F32, Shape: []int{3}, Data: make([]byte, 12)},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"tensor w", "512 bytes", "510", "tensor g is in"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}
