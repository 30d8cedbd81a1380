//go:build !unix

package sdk

// stdoutToStderr does nothing: there is no dup2 here.
func stdoutToStderr() error { return nil }
