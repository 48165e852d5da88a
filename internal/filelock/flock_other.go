//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package filelock

import "os"

// File does nothing where there is no flock.
func File(*os.File) error { return nil }
