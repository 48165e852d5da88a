// Package medtuned turns biomedical corpora into instruction rows: the nine evaluation tasks of BioInstruct, the sources
// of Llama2-MedTuned, and entity tagging and dialogues of a user's own.
//
// # Tasks and converters
//
// A Task says what is asked and how an answer is judged: its category, metrics, labels, how an answer is read, how long
// one may be, and several wordings of its instruction, all our own. The tasks are YAML files in the folder tasks, and a
// user may give more (ReadTask). A Converter reads the files of one corpus and makes a row of each record:
//
//	c, err := medtuned.Lookup("gad")
//	bad := rows.Bad{Limit: 0}
//	n, err := rows.Write("gad.jsonl", bad.LeaveOut(c.Convert(ctx, []string{"train.jsonl"}, medtuned.Options{Seed: 1})))
//
// Which wording a row gets depends on the seed and the row's id alone, not on the other rows or their order.
//
// # Files
//
// Licensed corpora are the user's to bring. Converter.Describe says which file of the corpus a converter takes and what
// must be in it. Records come as JSON (an array), JSON Lines, CSV or TSV with a first line of names, or Parquet, as
// package rows reads them, whatever form is named there; entity tagging comes as text of two columns. The corpora of i2b2 and
// Hallmarks of Cancer are read as they are distributed, too: notes or abstracts with what stands in them in files beside
// (.con, .rel, labels/), or in one of XML. Converter.Seen and Told say which shapes were tried on the corpus itself:
//
//	the corpus                                  converter
//	NCBI-disease, BC5CDR, BC2GM, JNLPBA         ncbi-disease, bc5cdr-disease, bc5cdr-chem, bc2gm, jnlpba
//	i2b2-2012 events                            i2b2-2012 (typed tags)
//	any other in two columns, or .con or XML    ner, ner-typed
//	GAD, i2b2-2010 relations                    gad, i2b2-2010
//	MedNLI                                      mednli
//	Hallmarks of Cancer                         hoc (sentences), hoc-documents
//	MedQA, MedMCQA, PubMedQA, BioASQ            medqa, medmcqa, pubmedqa, bioasq (its questions of yes and no)
//	ChatDoctor's HealthCareMagic, iCliniq       chatdoctor, icliniq
//	PMC-LLaMA's instructions                    pmc-llama
//	MTS-Dialog (Conv2note), ACI-Bench           mts-dialog, aci-bench
//	clinical-ie                                 medication-status, coreference
//
// # Ids and splits
//
// A row's id is source/file/number, the file without its folder and last extension and the number counting records from
// 0; where the corpus has ids of its own that no two files share, it is source/id. The split is one of train, dev and test:
// the one word of the file's name that means one (train, dev, devel, valid, val, validation, test, golden, ...), or what
// Options.Split says. A file that says none is an error, but for corpora that have only rows to train on.
//
// # What is known
//
// The shapes of Llama2-MedTuned's rows were read in its data; those of BioInstruct's evaluation are published nowhere, so
// ours are our own. Task.Shape says which it is, and Describe tells it.
//
// Text is trimmed at both ends, and its line ends become \n; nothing else of it is changed.
package medtuned
