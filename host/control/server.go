package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/host/event"
	"github.com/prometheus/client_golang/prometheus"
)

// The server's limits.
const (
	maxConns       = 1024 // further connections wait in the kernel's backlog
	maxHeaderBytes = 16 << 10
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 30 * time.Second // header and body of one request
	answerTimeout  = 2 * time.Minute  // a client that has not read its answer by then is cut off
	idleTimeout    = 2 * time.Minute
	maxReaders     = 64  // of events
	maxWaiters     = 256 // of outbox entries
)

// Options of a Server. All rooms are required.
type Options struct {
	Outbound Outbound
	Outbox   Outbox
	Peers    Peers
	Features Features
	Plugins  Plugins
	Overview Overview
	Reloader Reloader
	Events   *event.Bus
	// Metrics is what GET /metrics shows.
	Metrics prometheus.Gatherer
	// Version of the daemon, for GET /v1/version.
	Version string
	// Logger takes what has no caller to tell. Nil: nothing is logged.
	Logger hclog.Logger
}

// Server answers the local API. Make one with New, hand it a listener by Serve,
// end it with Shutdown.
type Server struct {
	opts     Options
	log      hclog.Logger
	http     *http.Server
	exact    map[string]route
	readers  chan struct{} // one token for each reader of events
	waiters  chan struct{} // one token for each waiter
	batches  chan struct{} // one token for each POST /v1/send/batch
	tokens   chan struct{} // one for each of their batches that is on its way to the outbox
	stopping chan struct{} // closed by Shutdown; ends streams and waits
	stopOnce sync.Once
	cancel   context.CancelFunc // ends the rooms' calls when Shutdown runs out of time
}

// route is what one path answers, by method.
type route map[string]http.HandlerFunc

// New checks the options and makes a server that does not listen yet.
func New(opts Options) (*Server, error) {
	for name, missing := range map[string]bool{
		"Outbound": opts.Outbound == nil, "Outbox": opts.Outbox == nil, "Peers": opts.Peers == nil,
		"Features": opts.Features == nil, "Plugins": opts.Plugins == nil, "Overview": opts.Overview == nil, "Reloader": opts.Reloader == nil,
		"Events": opts.Events == nil, "Metrics": opts.Metrics == nil,
	} {
		if missing {
			return nil, fmt.Errorf("control: Options.%s is missing", name)
		}
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		opts: opts, log: opts.Logger,
		readers:  make(chan struct{}, maxReaders),
		waiters:  make(chan struct{}, maxWaiters),
		batches:  make(chan struct{}, maxBatches),
		tokens:   make(chan struct{}, batchTokens),
		stopping: make(chan struct{}),
		cancel:   cancel,
	}
	s.exact = s.routes()
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          opts.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	return s, nil
}

// Serve answers on ln, made by Listen, until Shutdown; then it returns nil. It
// closes ln.
func (s *Server) Serve(ln net.Listener) error {
	err := s.http.Serve(newGate(ln, s.stopping, s.log))
	if errors.Is(err, http.ErrServerClosed) || s.isStopping() {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// Shutdown stops accepting, ends event streams and waits, lets other requests
// finish until ctx ends, and then cuts what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) }) // the gate hangs up on who has asked nothing
	err := s.http.Shutdown(ctx)
	s.cancel()
	if err != nil {
		err = errors.Join(fmt.Errorf("control: requests were still running: %w", err), s.http.Close())
	}
	return err
}

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// routes are the paths without a variable part.
func (s *Server) routes() map[string]route {
	get := func(h http.HandlerFunc) route { return route{http.MethodGet: h} }
	post := func(h http.HandlerFunc) route { return route{http.MethodPost: h} }
	return map[string]route{
		"/v1/version":        get(s.version),
		"/v1/health":         get(s.health),
		"/v1/status":         get(s.status),
		"/v1/plugins":        get(s.plugins),
		"/v1/events":         get(s.events),
		"/v1/peers":          get(s.peers),
		"/v1/features":       get(s.features),
		"/v1/send":           post(s.send),
		"/v1/send/batch":     post(s.sendBatch),
		"/v1/outbox":         get(s.outboxList),
		"/v1/outbox/requeue": post(s.outboxRequeue),
		"/v1/outbox/cancel":  post(s.outboxCancel),
		"/v1/state":          {http.MethodGet: s.stateGet, http.MethodPost: s.stateSet},
		"/v1/profile":        post(s.profile),
		"/v1/inbox":          {http.MethodGet: s.inboxList, http.MethodDelete: s.inboxPrune},
		"/v1/inbox/seen":     post(s.inboxSeen),
		"/v1/reload":         post(s.reload),
		"/metrics":           get(s.metrics),
	}
}

// lookup finds the route of a path; r.SetPathValue gets the variable parts.
func (s *Server) lookup(r *http.Request) (route, bool) {
	path := r.URL.Path
	if rt, ok := s.exact[path]; ok {
		return rt, true
	}
	if id, ok := strings.CutPrefix(path, "/v1/outbox/"); ok {
		// A client_message_id may hold a slash.
		if id, trace := strings.CutSuffix(id, "/trace"); trace && id != "" {
			r.SetPathValue("id", id)
			return route{http.MethodGet: s.outboxTrace}, true
		}
		id, wait := strings.CutSuffix(id, "/wait")
		if id == "" || strings.Contains(id, "/") {
			return nil, false
		}
		r.SetPathValue("id", id)
		if wait {
			return route{http.MethodGet: s.outboxWait}, true
		}
		return route{http.MethodGet: s.outboxShow}, true
	}
	if id, ok := strings.CutPrefix(path, "/v1/inbox/"); ok && id != "" && !strings.Contains(id, "/") {
		r.SetPathValue("id", id)
		return route{http.MethodDelete: s.inboxDelete}, true
	}
	if rest, ok := strings.CutPrefix(path, "/v1/features/"); ok {
		name, method, ok := strings.Cut(rest, "/")
		if !ok || name == "" || method == "" || strings.Contains(method, "/") {
			return nil, false
		}
		r.SetPathValue("feature", name)
		r.SetPathValue("method", method)
		return route{http.MethodPost: s.featureCall}, true
	}
	return nil, false
}

// serve is the way of every request: the rules of PROTOCOL 10.2, then the route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of the answer before on this connection
	if err := admit(r); err != nil {
		writeProblem(w, err)
		return
	}
	rt, ok := s.lookup(r)
	if !ok {
		writeProblem(w, &Problem{
			Status: http.StatusNotFound, Code: "not_found", Message: "no route " + r.URL.Path,
			Next: "GET /v1/version says what this daemon can do",
		})
		return
	}
	h, ok := rt[r.Method]
	if !ok {
		var allow []string
		for m := range rt {
			allow = append(allow, m)
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		writeProblem(w, &Problem{
			Status: http.StatusMethodNotAllowed, Code: "method_not_allowed",
			Message: r.Method + " is not possible on " + r.URL.Path, Next: "use " + strings.Join(allow, " or "),
		})
		return
	}
	h(w, r)
}

// admit applies the rules of PROTOCOL 10.2: they keep web pages and other hosts
// out, should the socket ever be forwarded to a port.
func admit(r *http.Request) error {
	if r.URL.RawQuery != "" && r.URL.Query().Has("token") {
		return &Problem{
			Status: http.StatusBadRequest, Code: "token_in_query", Message: "a token has no place in a URL",
			Next: "leave it out: the socket needs none",
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	switch host {
	case "", "localhost", "127.0.0.1", "[::1]", "::1":
	default:
		return &Problem{
			Status: http.StatusForbidden, Code: "bad_host", Message: "the Host header names another machine",
			Next: "use Host: localhost",
		}
	}
	if _, ok := r.Header["Origin"]; ok {
		return &Problem{
			Status: http.StatusForbidden, Code: "origin_refused", Message: "requests of web pages are refused",
			Next: "leave the Origin header out",
		}
	}
	return nil
}

// reply answers 200 with v as JSON.
func reply(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeProblem(w, fmt.Errorf("encode the answer: %w", err))
		return
	}
	writeBytes(w, http.StatusOK, body)
}
