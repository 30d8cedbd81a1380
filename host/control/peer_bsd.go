//go:build darwin || freebsd

package control

import (
	"net"

	"golang.org/x/sys/unix"
)

// solLocal is SOL_LOCAL, the level of LOCAL_PEERCRED, which is what getpeereid
// asks.
const solLocal = 0

// peerUID is the effective user of the process that connected, as the kernel
// noted it at connect.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Xucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if sockErr != nil {
		return 0, sockErr
	}
	return int(cred.Uid), nil
}
