// Package lora is low-rank adaptation (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) as
// Hugging Face's PEFT does it: which modules of a model are adapted and how, adapters on disk, and merging.
//
// Config has PEFT's fields and meanings, Match its rules. Inject puts a fresh adapter into a model and Load a saved
// one; Adapter.Save writes a directory that PEFT loads. Read reads such a directory without a model, for export.
//
// The reference is PEFT 0.21.
package lora
