package device_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/biolora/biolora/internal/backend/cpu"
	"github.com/biolora/biolora/internal/backend/cuda/driver"
	"github.com/biolora/biolora/internal/backend/cuda/emu"
	"github.com/biolora/biolora/internal/backend/device"
	"github.com/biolora/biolora/internal/backend/device/devicetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	emu.Remove()
	os.Exit(code)
}

func TestParse(t *testing.T) {
	for name, want := range map[string]device.Choice{
		"": {Auto: true}, "auto": {Auto: true}, "cpu": {CPU: true}, "cuda": {}, "cuda:0": {}, "cuda:12": {Card: 12},
	} {
		if got, err := device.Parse(name); err != nil || got != want {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99999", "CUDA", "cpu:0"} {
		if _, err := device.Parse(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// open opens a device and says what it is: the card or the CPU.
func open(t *testing.T, o device.Options) (string, string, error) {
	t.Helper()
	d, why, err := device.Open(o)
	if err != nil {
		return "", why, err
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, onCPU := d.(*cpu.Backend)
	_, onCard := d.(device.Card)
	if onCPU == onCard {
		t.Errorf("%s is on the CPU: %t, on a card: %t", d.Name(), onCPU, onCard)
	}
	name, _, _ := strings.Cut(d.Name(), " ")
	return name, why, nil
}

func TestOpen(t *testing.T) {
	card := devicetest.Use(t)
	for _, c := range []struct {
		o    device.Options
		want string
	}{
		{device.Options{}, "cuda:0"},
		{device.Options{Name: "auto", Compute: "f32"}, "cuda:0"},
		{device.Options{Name: "cuda"}, "cuda:0"},
		{device.Options{Name: "cpu"}, "cpu"},
		{device.Options{Name: "auto", Threads: 1}, "cpu"},
		{device.Options{Name: "auto", Features: "go"}, "cpu"},
		{device.Options{Name: "auto", Streamed: true}, "cpu"},
	} {
		if got, why, err := open(t, c.o); got != c.want || why != "" || err != nil {
			t.Errorf("%+v: %s, %q, %v; want %s", c.o, got, why, err, c.want)
		}
	}
	for _, o := range []device.Options{{Name: "cuda", Threads: 2}, {Name: "cuda:0", Features: "go"}, {Name: "cuda", Streamed: true}} {
		if _, _, err := open(t, o); err == nil || !strings.Contains(err.Error(), "device cpu") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, _, err := open(t, device.Options{Name: "cuda:1"}); err == nil || !strings.Contains(err.Error(), "device cuda:1") {
		t.Errorf("the second of one card: %v", err)
	}
	card.SetDevices(2)
	defer card.SetDevices(1)
	if got, _, err := open(t, device.Options{Name: "cuda:1"}); got != "cuda:1" || err != nil {
		t.Errorf("the second of two cards: %s, %v", got, err)
	}
}

// A card that is too old is refused where it is asked for; auto computes on the CPU and says why.
func TestOldCard(t *testing.T) {
	card := devicetest.Use(t)
	card.SetCapability(7, 5)
	defer card.SetCapability(8, 0)
	if _, _, err := open(t, device.Options{Name: "cuda"}); !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "7.5") {
		t.Errorf("cuda: %v", err)
	}
	if got, why, err := open(t, device.Options{}); got != "cpu" || !strings.Contains(why, "7.5") || err != nil {
		t.Errorf("auto: %s, %q, %v", got, why, err)
	}
}

// Where there is no driver, or it shows no card, auto is the CPU without a word.
func TestNoCard(t *testing.T) {
	card := devicetest.Use(t)
	card.SetDevices(0)
	if got, why, err := open(t, device.Options{}); got != "cpu" || why != "" || err != nil {
		t.Errorf("no card: %s, %q, %v", got, why, err)
	}
	card.SetDevices(1)
	device.Driver = "/no/such/libcuda.so"
	if got, why, err := open(t, device.Options{}); got != "cpu" || why != "" || err != nil {
		t.Errorf("no driver: %s, %q, %v", got, why, err)
	}
	if _, _, err := open(t, device.Options{Name: "cuda"}); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("cuda without a driver: %v", err)
	}
}

func TestFailure(t *testing.T) {
	failed := &driver.Error{Call: "cuMemAlloc", Code: 2}
	if err := device.Failure(failed); !errors.Is(err, device.ErrOutOfMemory) {
		t.Errorf("%v", err)
	}
	for _, other := range []any{nil, "text", errors.New("index out of range")} {
		if err := device.Failure(other); err != nil {
			t.Errorf("%v is taken for a card's failure", other)
		}
	}
}
