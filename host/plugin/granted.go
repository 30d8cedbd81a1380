package plugin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// serviceRate and serviceBurst bound the calls of one plugin to the host.
	serviceRate  = 1000
	serviceBurst = 2000
	// serviceInFlight bounds those that are not answered yet.
	serviceInFlight = 64
)

// granted is the sdk.Host of one incarnation: it checks grants and limits and
// passes the call on under the plugin's name.
type granted struct {
	caller   Caller
	grants   grants
	services Services
	log      hclog.Logger
	slots    chan struct{}

	mu    sync.Mutex
	limit bucket
}

var _ sdk.Host = (*granted)(nil)

func newGranted(s *Spec, d sdk.Description) *granted {
	return &granted{
		caller:   Caller{Kind: s.Kind, Name: s.Name},
		grants:   grants{declared: d.Frames, allow: s.Allow},
		services: s.Services,
		log:      s.Logger,
		slots:    make(chan struct{}, serviceInFlight),
		limit:    newBucket(serviceRate, serviceBurst, time.Now()),
	}
}

// serve runs one call within the limits.
func serve[R any](ctx context.Context, g *granted, check error, f func(Services) (R, error)) (res R, err error) {
	if check != nil {
		return res, check
	}
	if g.services == nil {
		return res, sdk.Errorf(sdk.CodeUnavailable, "no_host", "there is no daemon behind this plugin")
	}
	g.mu.Lock()
	ok := g.limit.take(time.Now(), 1)
	g.mu.Unlock()
	if !ok {
		e := sdk.Errorf(sdk.CodeFull, "rate_limited", "more than %d calls a second", serviceRate)
		e.RetryAfter = 100 * time.Millisecond
		return res, e
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return res, sdk.Errorf(sdk.CodeTimeout, "timeout", "%d calls were in flight all the time", serviceInFlight)
	}
	defer func() { <-g.slots }()
	res, err = f(g.services)
	if err == nil {
		return res, nil
	}
	var e *sdk.Error
	switch {
	case errors.As(err, &e):
		return res, e
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return res, sdk.Errorf(sdk.CodeTimeout, "timeout", "no answer in time")
	}
	// What the host says to itself may name files and peers.
	g.log.Error("host service failed", "plugin", string(g.caller.Kind)+"("+g.caller.Name+")", "error", err)
	return res, sdk.Errorf(sdk.CodeInternal, "host_error", "the daemon failed; its log says why")
}

func (g *granted) Request(ctx context.Context, req sdk.FrameRequest) (jsontext.Value, error) {
	return serve(ctx, g, g.grants.frame(req), func(s Services) (jsontext.Value, error) {
		return s.Request(ctx, g.caller, req)
	})
}

func (g *granted) Notify(ctx context.Context, req sdk.FrameRequest) error {
	return done(ctx, g, g.grants.frame(req), func(s Services) error { return s.Notify(ctx, g.caller, req) })
}

func (g *granted) Send(ctx context.Context, req sdk.SendRequest) (sdk.SendReply, error) {
	return serve(ctx, g, g.grants.send(req), func(s Services) (sdk.SendReply, error) {
		return s.Send(ctx, g.caller, req)
	})
}

func (g *granted) Peers(ctx context.Context, req sdk.PeersRequest) (sdk.PeerView, error) {
	return serve(ctx, g, shortNames(req.Mesh), func(s Services) (sdk.PeerView, error) {
		return s.Peers(ctx, g.caller, req)
	})
}

func (g *granted) Emit(ctx context.Context, kind string, data jsontext.Value) error {
	return done(ctx, g, g.grants.event(kind, data), func(s Services) error {
		return s.Emit(ctx, g.caller, kind, data)
	})
}

func (g *granted) StoreGet(ctx context.Context, key string) ([]byte, error) {
	return serve(ctx, g, storeKey(key), func(s Services) ([]byte, error) { return s.StoreGet(ctx, g.caller, key) })
}

func (g *granted) StorePut(ctx context.Context, key string, value []byte) error {
	check := storeKey(key)
	if check == nil {
		check = storeValue(value)
	}
	return done(ctx, g, check, func(s Services) error { return s.StorePut(ctx, g.caller, key, value) })
}

func (g *granted) StoreDelete(ctx context.Context, key string) error {
	return done(ctx, g, storeKey(key), func(s Services) error { return s.StoreDelete(ctx, g.caller, key) })
}

func (g *granted) StoreList(ctx context.Context, prefix string) ([]string, error) {
	var check error
	if prefix != "" { // all keys
		check = storeKey(prefix)
	}
	return serve(ctx, g, check, func(s Services) ([]string, error) { return s.StoreList(ctx, g.caller, prefix) })
}

// done is serve for a call without a result.
func done(ctx context.Context, g *granted, check error, f func(Services) error) error {
	_, err := serve(ctx, g, check, func(s Services) (struct{}, error) { return struct{}{}, f(s) })
	return err
}
