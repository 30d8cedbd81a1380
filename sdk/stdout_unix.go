//go:build unix && !linux

package sdk

import "golang.org/x/sys/unix"

// stdoutToStderr makes fd 1 lead where fd 2 does; C code and children write to
// it too.
func stdoutToStderr() error { return unix.Dup2(2, 1) }
