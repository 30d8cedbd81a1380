package bridge_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// serveHost serves host services on a Unix socket and returns its path.
func serveHost(t *testing.T, token string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mh") // t.TempDir may be too long for a socket
	noError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "host.sock")
	listener, err := net.Listen("unix", path)
	noError(t, err)
	g := grpc.NewServer(bridge.HostServerOptions(bridge.TokenIs(token))...)
	bridge.RegisterHost(g, &recordingHost{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return path
}

func TestOnlyTheTokenOpensTheHost(t *testing.T) {
	for name, c := range map[string]struct {
		token, shown string
		want         error
	}{
		"the token":      {"t0ken", "t0ken", nil},
		"another":        {"t0ken", "t0kem", sdk.ErrPermission},
		"a part":         {"t0ken", "t0k", sdk.ErrPermission},
		"none":           {"t0ken", "", sdk.ErrPermission},
		"none and empty": {"", "", sdk.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			host, closer, err := bridge.DialHost(serveHost(t, c.token), c.shown)
			noError(t, err)
			defer func() { _ = closer.Close() }()
			_, err = host.StoreList(t.Context(), "")
			if !errors.Is(err, c.want) || err != nil && strings.Contains(err.Error(), "t0k") {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAHostThatIsNotThereIsUnavailable(t *testing.T) {
	host, closer, err := bridge.DialHost(filepath.Join(t.TempDir(), "none.sock"), "t")
	noError(t, err)
	defer func() { _ = closer.Close() }()
	if _, err := host.StoreGet(t.Context(), "k"); !errors.Is(err, sdk.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
