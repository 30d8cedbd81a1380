package plugin

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttr gives the plugin a process group of its own, so that its children
// end with it, and has the kernel kill it when the host dies.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// reap waits for the end of the process and kills its children before it reaps
// it: while it is a zombie nobody else can get its number, so the group can be
// killed safely.
func (p *process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.id, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.kill()
	p.markReaped()
	_ = p.cmd.Wait()
}
