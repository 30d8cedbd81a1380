package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(mainCode())
}

// mainCode is main with an exit code, so that deferred calls run.
func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal ends the process at once, should the orderly way hang.
	defer context.AfterFunc(ctx, stop)()
	a := newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv, hostDaemon())
	return a.run(ctx, os.Args[1:])
}

// newApp makes the command line on these streams.
func newApp(stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string, d daemon) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, daemon: d}
}
