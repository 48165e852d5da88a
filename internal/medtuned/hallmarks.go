package medtuned

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/biolora/biolora/internal/rows"
)

const hallmarkFiles = `Or, in files *.txt, the corpus's own abstracts (sb895/Hallmarks-of-Cancer): text/NAME.txt, a sentence a line, each with
labels/NAME.txt, where "<" stands before the labels of each sentence. What follows a "--" is finer than a hallmark and left
out. Or those that the BLUE benchmark is made of: a sentence, a tab and a list ['...', '...'] in each line. The split is not
said by their names.

	text/1.txt:    The compound induced apoptosis .
	labels/1.txt:  <Resisting cell death--Apoptosis
`

const (
	hallmarksSeen = "text/ and labels/"
	hallmarksTold = "records of sentences, BLUE's TSV, flags and abstracts"
)

// blueOrder are the hallmarks as the BLUE benchmark numbers them from 0 [I]: by the alphabet, as in its scorer [F].
var blueOrder = []string{
	"activating invasion and metastasis", "avoiding immune destruction", "cellular energetics", "enabling replicative immortality",
	"evading growth suppressors", "genomic instability and mutation", "inducing angiogenesis", "resisting cell death",
	"sustaining proliferative signaling", "tumor promoting inflammation",
}

// hallmarkFlag says of a hallmark by its number whether it is there: 7_1.
var hallmarkFlag = regexp.MustCompile(`^(\d)_([01])$`)

// flagged reads the ten flags of BLUE's files for BERT. It is false where labels begin with something else.
func flagged(given []string) (names []string, ok bool, err error) {
	seen := map[string]bool{}
	for i, g := range given {
		m := hallmarkFlag.FindStringSubmatch(strings.Trim(g, " '\""))
		switch {
		case m == nil && i == 0:
			return nil, false, nil
		case m == nil:
			return nil, true, fmt.Errorf("expected a flag such as 7_1, got %q", short(g))
		case seen[m[1]]:
			return nil, true, fmt.Errorf("the flag of hallmark %s is there twice", m[1])
		}
		seen[m[1]] = true
		if n, _ := strconv.Atoi(m[1]); m[2] == "1" {
			names = append(names, blueOrder[n])
		}
	}
	if n := len(given); n > 0 && n != len(blueOrder) {
		return nil, true, fmt.Errorf("%d flags, expected one for each of the %d hallmarks", n, len(blueOrder))
	}
	return names, len(given) > 0, nil
}

// abstract reads a file of one abstract: a sentence each.
func abstract(ctx context.Context, file string, task *Task, _ skipFunc, yield func(item, error) bool) bool {
	text, err := readText(file)
	if err != nil {
		yield(item{}, err)
		return false
	}
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(text, "\r\n", "\n"), "\n"), "\n")
	labels, err := labelsBeside(file, lines)
	if err != nil {
		yield(item{}, err)
		return false
	}
	for i, line := range lines {
		if err := ctx.Err(); err != nil {
			yield(item{}, err)
			return false
		}
		it := item{key: strconv.Itoa(i), place: rows.Place{File: file, Line: i + 1, Element: -1}}
		sentence, given, of := line, "", false
		if labels == nil {
			if sentence, given, of = strings.Cut(line, "\t"); !of {
				err = errors.New("expected a sentence, a tab and its labels")
			}
		} else {
			given = labels[i]
		}
		f := &fields{}
		if it.input = strings.TrimSpace(sentence); it.input == "" {
			f.fail("the sentence is empty")
		}
		it.output = joinLabels(f.hallmarks(ownLabels(given, labels != nil), task), task)
		if err = errors.Join(append([]error{err}, f.errs...)...); err != nil {
			err = &rows.Error{Place: it.place, Err: err}
		}
		if !yield(it, err) {
			return false
		}
		err = nil
	}
	return true
}

// wholeAbstract is abstract with the abstract's name for the key of all its sentences.
func wholeAbstract(ctx context.Context, file string, task *Task, skip skipFunc, yield func(item, error) bool) bool {
	return abstract(ctx, file, task, skip, func(it item, err error) bool {
		it.key = stem(file)
		return yield(it, err)
	})
}

// labelsBeside are the labels of an abstract's sentences in the folder labels; nil where a line has its own.
func labelsBeside(file string, lines []string) ([]string, error) {
	if slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "\t[") }) {
		return nil, nil
	}
	name := filepath.Join(filepath.Dir(file), "..", "labels", filepath.Base(file))
	text, err := readText(name)
	if err != nil {
		return nil, fmt.Errorf("%s: no labels in its lines, and none beside it: %w", file, err)
	}
	labels := strings.Split(text, "<")
	if before := strings.TrimSpace(labels[0]); before != "" {
		return nil, fmt.Errorf(`%s:1: expected "<" before the labels of the first sentence, got %q`, name, short(before))
	}
	if labels = labels[1:]; len(labels) != len(lines) {
		return nil, fmt.Errorf("%s: labels of %d sentences, and %s has %d", name, len(labels), file, len(lines))
	}
	return labels, nil
}

// ownLabels are the labels of a sentence as the corpus has them, or else as a list.
func ownLabels(given string, corpus bool) (all []string) {
	if !corpus {
		return strings.Split(strings.Trim(given, "[] \t"), ",")
	}
	for _, one := range strings.Split(given, "AND") {
		name, _, _ := strings.Cut(one, "--")
		all = append(all, name)
	}
	return all
}
