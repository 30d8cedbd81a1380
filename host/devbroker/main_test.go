package devbroker

import (
	"context"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childEnv makes the test binary a broker process on the seed and data file that it names, for tests that kill it.
const childEnv = "MESHHOST_DEVBROKER_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// child serves until it is killed; it prints its address.
func child(dir string) error {
	seed, err := LoadSeed(dir + "/seed.json")
	if err != nil {
		return err
	}
	b, err := New(Options{Seed: seed, DataFile: dir + "/data", LogFile: dir + "/log"})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return b.Serve(context.Background(), ln)
}
