package roster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// filterTimeout is what one filter may take of one list (ARCHITECTURE 4).
	filterTimeout = 250 * time.Millisecond
	// filterCalls bounds the calls of one filter in flight, also those that nobody waits for any more.
	filterCalls = 16
)

// OnError says what a list does when a filter fails or takes too long.
type OnError string

// The ways of a filter that fails: its rows stay, with a warning; every row is withheld; or the list fails.
const (
	OnErrorSkip OnError = "skip"
	OnErrorHide OnError = "hide"
	OnErrorFail OnError = "fail"
)

// FailedReason is the reason that rows withheld by [OnErrorHide] are counted under.
const FailedReason = "filter_failed"

// Filter is a peer filter with the name of its block. OnError empty means skip.
type Filter struct {
	Name    string
	Filter  sdk.PeerFilter
	OnError OnError
}

// filter is one that is in use.
type filter struct {
	Filter
	calls chan struct{} // a slot for each call in flight
}

// usable checks filters and fills in what they leave open.
func usable(filters []Filter) ([]*filter, error) {
	next := make([]*filter, len(filters))
	for i, f := range filters {
		switch f.OnError {
		case "":
			f.OnError = OnErrorSkip
		case OnErrorSkip, OnErrorHide, OnErrorFail:
		default:
			return nil, fmt.Errorf("peer filter %q: on_error is %q, want skip, hide or fail", f.Name, f.OnError)
		}
		if f.Filter == nil {
			return nil, fmt.Errorf("peer filter %q has nothing to call", f.Name)
		}
		next[i] = &filter{Filter: f, calls: make(chan struct{}, filterCalls)}
	}
	return next, nil
}

// List asks the broker of q.Mesh, and runs the filters. An empty q.Viewer is the member. With q.All nothing is hidden, and
// Hidden tells what would be. Errors are *sdk.Error values or wrap them: of the broker's request, or of a filter with on_error
// = "fail".
func (r *Roster) List(ctx context.Context, q sdk.PeerQuery) (sdk.PeerView, error) {
	if q.Viewer == "" {
		q.Viewer = r.opts.Own.MemberKey(q.Mesh)
	}
	rows, err := r.ask(ctx, q.Mesh)
	if err != nil {
		return sdk.PeerView{}, err
	}
	all := make([]sdk.Peer, len(rows)) // our copy: the rows are shared with other lists
	for i := range rows {
		all[i] = rows[i]
		all[i].Mesh = q.Mesh
		all[i].Annotations = maps.Clone(rows[i].Annotations)
	}
	kept := make([]int, len(all)) // indexes into all
	for i := range kept {
		kept[i] = i
	}
	var view sdk.PeerView
	for _, f := range r.filters {
		verdicts, err := r.verdicts(ctx, f, q, pick(all, kept))
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return sdk.PeerView{}, fmt.Errorf("list peers of %q: %w", q.Mesh, ctx.Err())
		case f.OnError == OnErrorFail:
			return sdk.PeerView{}, sdk.Errorf(sdk.CodeUnavailable, "filter_failed", "peer filter %q: %s", f.Name, err).
				WithNext("see `meshhost plugin list`, or set on_error = \"skip\" for this filter")
		case f.OnError == OnErrorHide:
			view.Warnings = append(view.Warnings, fmt.Sprintf("peer filter %q: %s; every row is withheld", f.Name, err))
			if len(kept) > 0 {
				view.Hidden = append(view.Hidden, sdk.HiddenCount{Filter: f.Name, Reason: FailedReason, Count: len(kept)})
			}
			kept = nil
			continue
		default:
			view.Warnings = append(view.Warnings, fmt.Sprintf("peer filter %q: %s; rows that it would hide are shown", f.Name, err))
			continue
		}
		kept, view.Hidden = apply(f.Name, all, kept, verdicts, view.Hidden)
	}
	if q.All {
		view.Peers = all
	} else {
		view.Peers = pick(all, kept)
	}
	return view, nil
}

func pick(all []sdk.Peer, kept []int) []sdk.Peer {
	out := make([]sdk.Peer, len(kept))
	for i, n := range kept {
		out[i] = all[n]
	}
	return out
}

// apply carries out a filter's verdicts and counts what it hides, in the order of first mention.
func apply(name string, all []sdk.Peer, kept []int, verdicts []sdk.Verdict, hidden []sdk.HiddenCount) ([]int, []sdk.HiddenCount) {
	var left []int
	first := len(hidden)
	for i, v := range verdicts {
		row := &all[kept[i]]
		if len(v.Annotations) > 0 {
			// A new map: earlier filters may still hold the rows with the old one.
			merged := maps.Clone(row.Annotations)
			if merged == nil {
				merged = make(map[string]string, len(v.Annotations))
			}
			maps.Copy(merged, v.Annotations)
			row.Annotations = merged
		}
		if !v.Hide {
			left = append(left, kept[i])
			continue
		}
		n := first
		for n < len(hidden) && hidden[n].Reason != v.Reason {
			n++
		}
		if n == len(hidden) {
			hidden = append(hidden, sdk.HiddenCount{Filter: name, Reason: v.Reason})
		}
		hidden[n].Count++
	}
	return left, hidden
}

// verdicts calls a filter for at most its time, whether it heeds its context or not: a frozen plugin delays a list by that
// much, and never holds more than its slots.
func (r *Roster) verdicts(ctx context.Context, f *filter, q sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	select {
	case f.calls <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d calls of it are still without an answer", filterCalls)
	}
	type answer struct {
		verdicts []sdk.Verdict
		err      error
	}
	got := make(chan answer, 1)
	if !r.begin() {
		<-f.calls
		return nil, errors.New("the daemon is stopping")
	}
	callCtx, cancel := context.WithTimeout(r.ctx, filterTimeout)
	n := len(rows) // the filter may do with rows what it likes
	go func() {
		defer r.wg.Done()
		defer cancel()
		verdicts, err := f.Filter.Filter.Filter(callCtx, q, rows)
		<-f.calls
		got <- answer{verdicts, err}
	}()
	timer := time.NewTimer(filterTimeout)
	defer timer.Stop()
	select {
	case a := <-got:
		switch {
		case a.err != nil && errors.Is(callCtx.Err(), context.DeadlineExceeded):
			return nil, fmt.Errorf("no answer within %s", filterTimeout)
		case a.err != nil:
			return nil, a.err
		case len(a.verdicts) != n:
			return nil, fmt.Errorf("a fault of the plugin: %d verdicts for %d rows", len(a.verdicts), n)
		}
		return a.verdicts, nil
	case <-timer.C:
		return nil, fmt.Errorf("no answer within %s", filterTimeout)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin counts a goroutine of the roster, unless it is closed.
func (r *Roster) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.wg.Add(1)
	return true
}
