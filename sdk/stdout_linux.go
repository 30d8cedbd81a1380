package sdk

import "golang.org/x/sys/unix"

// stdoutToStderr makes fd 1 lead where fd 2 does; C code and children write to
// it too. Dup3, since some Linux architectures have no dup2.
func stdoutToStderr() error { return unix.Dup3(2, 1, 0) }
