// Package train fine-tunes: it makes micro-batches of instruction data, accumulates their gradients into optimiser
// steps, follows a schedule, evaluates, keeps the best adapter and tells hooks about it. Its numbers are those of
// Hugging Face's Trainer. Weights and kernels are package model's.
package train
