// Package exec runs graphs of gorgonia whose operations are all our own. gorgonia keeps the graph, its types and
// shapes; symbolic differentiation is each operation's SymDiff, gathered by Backprop; VM is a gorgonia.VM with a
// flat program and buffers that are planned when the graph is compiled, so that a run allocates nothing, reports
// a panic as an error that names the operation, and takes any number of rows.
//
// A VM splits its program at the backward pass: Forward leaves in a Frame what Backward reads. One Frame for all
// layers and a Recompute before each Backward is activation checkpointing; a Frame for each layer keeps
// everything but what is cheap to compute again (Cheap). Both run the same instructions on the same numbers, so
// the choice never changes a result.
package exec
