package plugin

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

func TestTrapC2TheThreadThatForksMustLive(t *testing.T) {
	t.Run("naive", func(t *testing.T) {
		cmd := exec.Command(self())
		cmd.Env = []string{modeEnv + "=silent"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		started := make(chan error, 1)
		var fork func()
		fork = func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with us
			if syscall.Gettid() != os.Getpid() {
				started <- cmd.Start()
				return
			}
			// The first thread never ends; another one will do.
			done := make(chan struct{})
			go func() { defer close(done); fork() }()
			<-done
			runtime.UnlockOSThread()
		}
		go fork()
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		died := within(naiveHang, func() bool { return !alive(cmd.Process.Pid) })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if !died {
			t.Fatal("the child outlives the thread that forked it")
		}
	})
	t.Run("ours", func(t *testing.T) {
		done := make(chan *Plugin)
		go func() {
			runtime.LockOSThread()
			done <- startReady(t, spec(sdk.KindFeature, "plain", shortDir(t)))
		}()
		p := <-done
		for range 50 { // threads come and go
			gone := make(chan struct{})
			go func() { defer close(gone); runtime.LockOSThread() }()
			<-gone
		}
		runtime.GC()
		pid := p.Status().Pid
		if within(300*time.Millisecond, func() bool { return !alive(pid) }) || p.Status().Crashes > 0 {
			t.Fatalf("the plugin died: %+v", p.Status())
		}
	})
}
