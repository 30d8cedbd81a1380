package plugin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/bridge"
)

// hostServer is the socket on which one incarnation of one plugin reaches the
// daemon. Who has the token is that plugin; both end with the process.
type hostServer struct {
	address string // path of the socket
	token   string
	sum     [sha256.Size]byte
	revoked atomic.Bool
	log     hclog.Logger
	server  *grpc.Server
	served  chan struct{}
}

// hostSocketName is short: the path of a socket has to stay below 100 bytes.
const hostSocketName = "h"

// startHostServer listens in dir, which is private, and serves host.
func startHostServer(dir string, host sdk.Host, log hclog.Logger) (*hostServer, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return nil, fmt.Errorf("host services: token: %w", err)
	}
	path := filepath.Join(dir, hostSocketName)
	h := &hostServer{
		address: path,
		token:   hex.EncodeToString(secret[:]),
		log:     log,
		served:  make(chan struct{}),
	}
	h.sum = sha256.Sum256([]byte(h.token))
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("host services: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("host services: %w", err)
	}
	h.server = grpc.NewServer(append(bridge.HostServerOptions(h.knows),
		// More than may be in flight, so that waiting is ours and not gRPC's.
		grpc.MaxConcurrentStreams(4*serviceInFlight),
		grpc.ChainUnaryInterceptor(h.recover),
	)...)
	bridge.RegisterHost(h.server, host)
	go func() {
		defer close(h.served)
		_ = h.server.Serve(listener) // ends by stop
	}()
	return h, nil
}

// knows reports whether a token is the one of a process that lives. It compares
// in constant time, whatever the length of what was sent.
func (h *hostServer) knows(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], h.sum[:]) == 1 && !h.revoked.Load()
}

// recover survives a panic of an implementation.
func (h *hostServer) recover(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	defer func() {
		if r := recover(); r != nil {
			h.log.Error("panic in a host service", "method", info.FullMethod, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			res, err = nil, sdk.Errorf(sdk.CodeInternal, "host_error", "the daemon failed; its log says why")
		}
	}()
	return handler(ctx, req)
}

// stop revokes the token and ends every call.
func (h *hostServer) stop() {
	h.revoked.Store(true)
	h.server.Stop()
	<-h.served
}
