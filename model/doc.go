// Package model is the LLaMA decoder: it opens a Hugging Face checkpoint, runs it forward and backward on ragged
// micro-batches, and generates.
//
// The checkpoint's matrices stay where they are, mapped from the file; nothing is converted or copied. What is
// trained are low-rank branches of linears (Linear.SetBranch) and whole matrices (Model.TrainFull), in float32;
// package lora decides which. A Model belongs to one goroutine at a time.
package model
