//go:build !linux

package gemm

import "errors"

func tilePermission() error { return errors.New("tiles are used on Linux alone") }
