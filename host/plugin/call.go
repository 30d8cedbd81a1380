package plugin

import (
	"context"
	"errors"
	"fmt"

	"github.com/meshhost/meshhost/sdk"
)

// call runs f on the current incarnation, within the method's time and ctx. All
// facade methods go through here.
func call[C, R any](ctx context.Context, p *Plugin, m Method, pick func(*calls) (C, bool), f func(context.Context, C) (R, error)) (R, error) {
	var zero R
	s := p.spec.Load()
	ctx2, cancel := context.WithTimeout(ctx, s.timeout(m))
	defer cancel()
	in, err := p.gate.enter(ctx2)
	if err != nil {
		return zero, p.notCalled(ctx, s, m, err)
	}
	defer p.gate.leave()
	client, ok := pick(in.calls())
	if !ok {
		return zero, notOffered(s, m, in)
	}
	r, err := f(ctx2, client)
	if err != nil {
		return zero, fault(ctx, ctx2, s, m, in, err)
	}
	return r, nil
}

// stream runs a call that may last on the current incarnation until f returns.
// It does not hold up a replacement: the incarnation ends its streams when it is
// drained, and the caller begins again. f returns the error of the caller's own
// callback, if that ended it, beside the one of the call.
func stream[C any](ctx context.Context, p *Plugin, m Method, pick func(*calls) (C, bool), f func(context.Context, C) (own, err error)) error {
	s := p.spec.Load()
	in, err := p.gate.enter(ctx)
	if err != nil {
		return p.notCalled(ctx, s, m, err)
	}
	p.gate.leave()
	client, ok := pick(in.calls())
	if !ok {
		return notOffered(s, m, in)
	}
	own, err := f(ctx, client)
	switch {
	case own != nil:
		return own
	case err != nil:
		return fault(ctx, ctx, s, m, in, err)
	default:
		return nil
	}
}

// notOffered is the error of a call that the plugin's kinds don't have.
func notOffered(s *Spec, m Method, in incarnation) error {
	return &sdk.Error{
		Code: sdk.CodeNotFound, Reason: ReasonNotOffered,
		Message: fmt.Sprintf("%s: %s: the plugin is not of that kind; it is %v", s.id(), m, in.description().Kinds),
	}
}

// notCalled is the error of a call that did not get as far as the plugin.
func (p *Plugin) notCalled(ctx context.Context, s *Spec, m Method, err error) error {
	var down *sdk.Error
	if errors.As(err, &down) {
		return down
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", s.id(), m, ctx.Err())
	}
	return &sdk.Error{
		Code: sdk.CodeUnavailable, Reason: ReasonDown,
		Message: fmt.Sprintf("%s: %s: it is being replaced and took longer than %s", s.id(), m, s.timeout(m)),
		Next:    "Try again; `meshhost plugin list` shows its state.",
	}
}

// fault is the error of a call that reached the plugin, or may have. outer is
// the caller's context, inner the one with the method's time.
func fault(outer, inner context.Context, s *Spec, m Method, in incarnation, err error) error {
	where := s.id() + ": " + string(m) + ": "
	// The caller left: that is its own doing, and it knows.
	if errors.Is(outer.Err(), context.Canceled) {
		return fmt.Errorf("%s%w", where, outer.Err())
	}
	var e *sdk.Error
	errors.As(err, &e)
	lost := &sdk.Error{
		Code: sdk.CodeUnavailable, Reason: ReasonUnknown,
		Message: where + "the plugin's process ended during the call; whether it took effect is unknown",
		Next:    "Try again with the same id; the plugin starts again by itself.",
	}
	switch {
	case inner.Err() == nil && broken(err):
		return lost
	case inner.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		limit := "within " + s.timeout(m).String()
		if outer.Err() != nil {
			limit = "before the caller's deadline"
		}
		return &sdk.Error{
			Code: sdk.CodeTimeout, Reason: ReasonTimeout,
			Message: where + "no answer " + limit + "; whether it took effect is unknown",
		}
	case e != nil: // the plugin said so
		c := *e
		c.Message = s.id() + ": " + e.Message
		return &c
	case gone(in):
		return lost
	default:
		return &sdk.Error{Code: sdk.CodeInternal, Reason: "plugin_error", Message: where + err.Error()}
	}
}

// gone reports whether the process has ended.
func gone(in incarnation) bool {
	select {
	case <-in.exited():
		return true
	default:
		return false
	}
}

// broken reports whether a call ended because its connection did. The bridge
// marks such errors; a plugin that used these words itself would only make its
// own outcome unknown, which is the safe reading.
func broken(err error) bool {
	var e *sdk.Error
	return errors.As(err, &e) && (e.Reason == "transport" || e.Reason == "canceled")
}
