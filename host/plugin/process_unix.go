//go:build unix && !linux

package plugin

import "syscall"

// processAttr gives the plugin a process group of its own, so that its children
// end with it. When the host dies, the SDK sees its connection end and exits.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// reap waits for the end of the process and then kills what is left of its
// group; a group keeps its number as long as it has members.
func (p *process) reap() {
	_ = p.cmd.Wait()
	p.kill()
	p.markReaped()
}
