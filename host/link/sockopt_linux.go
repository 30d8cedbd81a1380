package link

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// userTimeout in ms: the kernel gives up on bytes that nobody acknowledged for so long, where it would try for 15 minutes.
const userTimeout = 30_000

func setUserTimeout(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// A kernel that refuses still has the watchdog above it.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
}
