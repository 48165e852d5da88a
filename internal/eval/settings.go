package eval

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/biolora/biolora/internal/atomicfile"
	"github.com/biolora/biolora/internal/dataset"
	"github.com/biolora/biolora/internal/fingerprint"
	"github.com/biolora/biolora/internal/local"
	"github.com/biolora/biolora/internal/regular"
)

// settings are all that answers depend on, but for the machine. Files are told by their contents, not by their paths.
type settings struct {
	Version       int                       `json:"version"` // of what is made of the same settings
	Systems       []systemSettings          `json:"systems"`
	Tasks         []taskSettings            `json:"tasks"`
	ChatTemplate  string                    `json:"chat_template,omitempty"` // SHA-256
	SystemPrompt  string                    `json:"system_prompt,omitempty"`
	Now           string                    `json:"now"`
	Beams         int                       `json:"beams"`
	LengthPenalty float64                   `json:"length_penalty"`
	Temperature   float64                   `json:"temperature"`
	TopK          int                       `json:"top_k"`
	TopP          float64                   `json:"top_p"`
	Seed          uint64                    `json:"seed"`
	Likelihood    bool                      `json:"likelihood"`
	Perplexity    bool                      `json:"perplexity"`
	Compute       string                    `json:"compute"`
	paths         map[string]systemLocation // of systems; not part of what is compared
}

type systemSettings struct {
	Name     string `json:"name"`
	Model    string `json:"model"`             // fingerprint, see local.ModelFingerprint
	Adapter  string `json:"adapter,omitempty"` // fingerprint, see local.AdapterFingerprint
	Base     string `json:"base"`
	Template string `json:"template"`        // name
	Prompt   string `json:"template_sha256"` // of its texts
}

type systemLocation struct{ model, adapter string }

type taskSettings struct {
	Name         string   `json:"name"`
	Files        []string `json:"files"` // SHA-256
	Rows         string   `json:"rows"`  // SHA-256 of the rows' ids in their order
	N            int      `json:"n"`
	Template     string   `json:"template,omitempty"` // the task's own, by name
	Shots        int      `json:"shots"`
	ShotRows     string   `json:"shot_rows,omitempty"` // SHA-256 of the examples' texts in the order of choice
	Stop         []string `json:"stop,omitempty"`
	MaxNewTokens int      `json:"max_new_tokens"`
	Labels       []string `json:"labels,omitempty"` // whose likelihood is wanted
}

// Version changes when the same settings give other rows, prompts or answers.
const Version = 2

// state is run.json.
type state struct {
	Fingerprint string            `json:"fingerprint"`
	Settings    *settings         `json:"settings"`
	Backends    map[string]string `json:"backends"` // what computed, by system
}

// resolve finds the settings of a run.
func (r *run) resolve() (*settings, error) {
	s := &settings{
		Version: Version, SystemPrompt: r.SystemPrompt, Now: r.Now.Format(time.RFC3339), Beams: r.Beams, LengthPenalty: r.LengthPenalty, Temperature: r.Temperature,
		TopK: r.TopK, TopP: r.TopP, Seed: r.Seed, Likelihood: r.Likelihood, Perplexity: r.Perplexity,
		Compute: r.Model.Compute, paths: map[string]systemLocation{},
	}
	var errs []error
	if r.ChatTemplate != "" {
		s.ChatTemplate = fingerprint.Texts(r.ChatTemplate)
		if text, err := regular.ReadFile(r.ChatTemplate, dataset.MaxTemplate); err == nil {
			s.ChatTemplate = fingerprint.Texts(string(text))
		}
	}
	models := map[string]string{}
	for _, sys := range r.Systems {
		t, name, err := r.template(sys, nil)
		errs = append(errs, err)
		if _, ok := models[sys.Model]; !ok {
			models[sys.Model], err = local.ModelFingerprint(sys.Model)
			errs = append(errs, err)
		}
		x := systemSettings{Name: sys.Name, Model: models[sys.Model], Base: sys.Base, Template: name,
			Prompt: fingerprint.Texts(t.PromptInput, t.PromptNoInput, t.Inference)}
		if sys.Adapter != "" {
			x.Adapter, err = local.AdapterFingerprint(sys.Adapter)
			errs = append(errs, err)
		}
		s.Systems = append(s.Systems, x)
		s.paths[sys.Name] = systemLocation{sys.Model, sys.Adapter}
	}
	for _, x := range r.sets {
		t := taskSettings{Name: x.Task.Name, N: len(x.rows), Shots: r.shotCount(x), Stop: r.stops(x), MaxNewTokens: r.newTokens(x)}
		if x.Task.Template != "" {
			own, name, err := r.template(System{}, x)
			errs = append(errs, err)
			t.Template = name + " " + fingerprint.Texts(own.PromptInput, own.PromptNoInput, own.Inference)
		}
		for _, f := range x.files {
			t.Files = append(t.Files, f.SHA256)
		}
		var keys, shots []string
		for _, row := range x.rows {
			keys = append(keys, row.key)
		}
		for _, row := range x.shots {
			shots = append(shots, row.Instruction, row.Input, row.Output)
		}
		if t.Rows = fingerprint.Texts(keys...); len(shots) > 0 {
			t.ShotRows = fingerprint.Texts(shots...)
		}
		if r.Likelihood && x.Task.Parser == "label" {
			t.Labels = x.Task.Labels
		}
		s.Tasks = append(s.Tasks, t)
	}
	return s, errors.Join(errs...)
}

// newTokens is how long an answer may be.
func (o *Options) newTokens(x *set) int {
	if o.MaxNewTokens > 0 {
		return o.MaxNewTokens
	}
	return x.Task.MaxNewTokens
}

// stops are the strings that end an answer, but for those of examples.
func (o *Options) stops(x *set) []string { return slices.Concat(o.Stop, x.Task.Stop) }

// fingerprint is the SHA-256 of the settings.
func (s *settings) fingerprint() (string, error) {
	text, err := json.Marshal(s)
	return fingerprint.Texts(string(text)), err
}

// claim makes the directory and finds out whether an earlier run's answers are there to go on with. It writes run.json
// where they are not.
func (r *run) claim() error {
	if err := r.take(); err != nil {
		return err
	}
	if r.Overwrite {
		for _, name := range []string{runFile, predictionsFile, ResultsFile, ReportFile, verdictsFile} {
			if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	text, err := regular.ReadFile(r.path(runFile), 1<<26)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{predictionsFile, ResultsFile} {
			if _, err := os.Lstat(r.path(name)); err == nil {
				return fmt.Errorf("%s is there without a %s: it is not of a run that can go on", r.path(name), runFile)
			}
		}
		r.backends = map[string]string{}
		return r.writeState()
	}
	if err != nil {
		return err
	}
	var before state
	err = json.Unmarshal(text, &before)
	if err == nil && before.Settings == nil {
		err = errors.New("it has no settings")
	}
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", r.path(runFile), err)
	}
	if r.backends = before.Backends; r.backends == nil {
		r.backends = map[string]string{}
	}
	if now, err := r.settings.fingerprint(); err != nil || now == before.Fingerprint {
		return err
	}
	if info, err := os.Stat(r.path(predictionsFile)); err != nil || info.Size() == 0 { // it came to no answer
		r.backends = map[string]string{}
		return r.writeState()
	}
	changes, err := differences(before.Settings, r.settings)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s has a run with other settings, which does not go on: %s", r.Out, strings.Join(changes, "; "))
}

func (r *run) writeState() error {
	print, err := r.settings.fingerprint()
	if err != nil {
		return err
	}
	return atomicfile.WriteJSON(r.path(runFile), state{print, r.settings, r.backends})
}

// differences says which values differ between two settings.
func differences(a, b *settings) (list []string, err error) {
	x, err := flat(a)
	if err != nil {
		return nil, err
	}
	y, err := flat(b)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(x)
	maps.Copy(all, y)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if x[key] != y[key] {
			list = append(list, fmt.Sprintf("%s was %s, is %s", key, cmp.Or(x[key], "absent"), cmp.Or(y[key], "absent")))
		}
	}
	if n := len(list); n > 8 {
		list = append(list[:8], fmt.Sprintf("and %d more", n-8))
	}
	return list, nil
}

// flat are the values in settings by their paths.
func flat(s *settings) (map[string]string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				walk(strings.TrimPrefix(path+"."+key, "."), value)
			}
		case []any:
			for i, value := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), value)
			}
		case string:
			out[path] = fmt.Sprintf("%.20q", v)
		default:
			out[path] = fmt.Sprint(v)
		}
	}
	walk("", tree)
	return out, nil
}
