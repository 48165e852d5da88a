package cuda

// optimiser is what the operations on lists of parameters keep.
type optimiser struct {
	moved bool // a parameter has got memory since the table was made
}
