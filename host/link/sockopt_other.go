//go:build !linux

package link

import "syscall"

func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
