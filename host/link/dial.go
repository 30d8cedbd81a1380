package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/meshhost/meshhost/host/wire"
)

// dialTimeout is one deadline for TCP, TLS and the upgrade.
const dialTimeout = 20 * time.Second

// ErrInsecure says that a plain ws:// address isn't on this machine: hellos can't be stolen over it, but all metadata and every
// broadcast would cross the network in the clear.
var ErrInsecure = errors.New("unencrypted broker address")

// CheckURL accepts wss://, and ws:// to loopback or if insecure remotes were allowed.
func CheckURL(raw string, insecureRemote bool) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("broker address: %w", err)
	}
	if u.Host == "" || (u.Scheme != "ws" && u.Scheme != "wss") {
		return fmt.Errorf("broker address %q: want ws://HOST/ws or wss://HOST/ws", u.Redacted())
	}
	if u.User != nil {
		return fmt.Errorf("broker address %q: a broker takes no user and password", u.Redacted())
	}
	if u.Scheme == "ws" && !insecureRemote && !isLoopback(u.Hostname()) {
		return fmt.Errorf("%w %q: use wss://, or allow ws:// beyond this machine explicitly", ErrInsecure, u.Redacted())
	}
	return nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// dialed is what an upgrade left behind.
type dialed struct {
	conn      *websocket.Conn
	transport *coalescer // below conn (and above TLS, except through a proxy)
	resp      *http.Response
}

// dial opens the socket. onPing is called by whoever reads from it.
func (l *Link) dial(ctx context.Context, onPing func()) (dialed, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var mu sync.Mutex // the HTTP transport dials on a goroutine of its own, which may outlive a cancelled call
	var lower *coalescer
	wrap := func(conn net.Conn) net.Conn {
		mu.Lock()
		defer mu.Unlock()
		lower = newCoalescer(conn)
		return lower
	}
	transport := l.transport(wrap)
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	conn, resp, err := websocket.Dial(ctx, l.opts.URL, &websocket.DialOptions{
		HTTPClient:      client,
		CompressionMode: websocket.CompressionDisabled, // ciphertext doesn't compress
		OnPingReceived:  func(context.Context, []byte) bool { onPing(); return true },
	})
	if err != nil {
		return dialed{resp: resp}, err
	}
	conn.SetReadLimit(wire.MaxRead)
	mu.Lock()
	defer mu.Unlock()
	return dialed{conn: conn, transport: lower, resp: resp}, nil
}

func (l *Link) transport(wrap func(net.Conn) net.Conn) *http.Transport {
	t := &http.Transport{
		TLSClientConfig:   l.tlsConfig(),
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := l.dialTCP(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return wrap(conn), nil
		},
	}
	if l.opts.Dial == nil {
		t.Proxy = http.ProxyFromEnvironment
	}
	// Not used through a proxy; there the frames are collected below TLS, which costs a record per frame and nothing else.
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := l.dialTCP(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := l.tlsConfig()
		if config.ServerName == "" {
			if host, _, err := net.SplitHostPort(addr); err == nil {
				config.ServerName = host
			}
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the handshake's error is the one to tell
			return nil, fmt.Errorf("TLS: %w", err)
		}
		return wrap(secure), nil
	}
	return t
}

func (l *Link) tlsConfig() *tls.Config {
	config := &tls.Config{}
	if l.opts.TLS != nil {
		config = l.opts.TLS.Clone()
	}
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	config.NextProtos = []string{"http/1.1"}
	return config
}

func (l *Link) dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	if l.opts.Dial != nil {
		return l.opts.Dial(ctx)
	}
	d := net.Dialer{Control: setUserTimeout}
	return d.DialContext(ctx, network, addr)
}
