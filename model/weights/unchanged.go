package weights

import "errors"

// Unchanged returns an error for each file that was written to or cut short since Open, with its size and time then and
// now. It costs a system call a file.
func (c *Checkpoint) Unchanged() error {
	var errs []error
	for _, s := range c.open {
		if err := s.Unchanged(); err != nil { // no errors take no memory
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
