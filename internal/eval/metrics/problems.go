package metrics

import (
	"errors"
	"fmt"
)

// problems gathers what is wrong with a set of examples.
type problems []error

func (p *problems) add(format string, args ...any) {
	*p = append(*p, fmt.Errorf(format, args...))
}

// shown is how many problems an error spells out.
const shown = 20

// err is nil without problems.
func (p problems) err() error {
	if len(p) > shown {
		more := fmt.Errorf("and %d more", len(p)-shown)
		p = append(p[:shown:shown], more)
	}
	return errors.Join(p...)
}
