// Package bioinstruct makes instruction data in the way of BioInstruct (Tran, Yang, Yao and Yu, 2024): a model is shown 3
// of 80 seed tasks at a time and writes more, what is malformed or too much like another is left out, and a model says
// what kind of task each is.
//
// Three jobs: Generate, Classify, Measure. The first two put their questions through package ask: whatever ends a run, the
// same call goes on from the journal, and Replay makes the same rows of the journal alone.
//
// What is known of the paper's own way has a tag in comments: [F] read in a source, [C] computed on 2,501 of its 25,005
// rows, [I] inferred, [N] not found. The seeds, the prompts and the definitions of the categories are this project's.
package bioinstruct
