package outbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// store is an sdk.Outbox in memory: simple, exact, slow. Its hooks inject what
// goes wrong; they run outside of its lock.
type store struct {
	sdk.Outbox // what no test uses
	mu         sync.Mutex
	rows       []*sdk.Entry
	seq        int64
	lanes      map[string]*holder
	pages      int // List: entries a page, 0: as asked
	full       bool
	sealed     string // what Stats says
	calls      map[string]int
	scanned    int // entries that Scan gave

	// before runs before a call takes effect: its error is the call's, and
	// nothing happened. after runs when it has: its error hides the answer.
	before, after func(method string, ops []sdk.Op) error
	// fetched may change what Fetch answers.
	fetched func(*sdk.FetchResult)
}

type holder struct {
	owner, incarnation string
	epoch              int64
	expires            time.Time
}

func newStore() *store { return &store{lanes: map[string]*holder{}, calls: map[string]int{}} }

var (
	errDown    = &sdk.Error{Code: sdk.CodeUnavailable, Reason: plugin.ReasonDown, Message: "outbox(test): it is down"}
	errUnknown = &sdk.Error{Code: sdk.CodeUnavailable, Reason: plugin.ReasonUnknown, Message: "outbox(test): it ended during the call"}
	errInvalid = &sdk.Error{Code: sdk.CodeInvalid, Reason: "bad_op", Message: "outbox(test): bad op"}
	errDefect  = &sdk.Error{Code: sdk.CodeInternal, Reason: "plugin_error", Message: "outbox(test): defect"}
)

func (s *store) enter(ctx context.Context, method string, ops []sdk.Op) error {
	s.mu.Lock()
	s.calls[method]++
	before := s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(method, ops); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *store) leave(method string, ops []sdk.Op) error {
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	if after != nil {
		return after(method, ops)
	}
	return nil
}

// set installs hooks; nil takes one away.
func (s *store) set(before, after func(method string, ops []sdk.Op) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

func (s *store) count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func copyOf(e *sdk.Entry, body bool) *sdk.Entry {
	c := *e
	c.Body, c.Fingerprint = slices.Clone(e.Body), slices.Clone(e.Fingerprint)
	if !body {
		c.Body = nil
	}
	return &c
}

func (s *store) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	if err := s.enter(ctx, "apply", ops); err != nil {
		return nil, err
	}
	s.mu.Lock()
	out := make([]sdk.OpResult, len(ops))
	for i := range ops {
		out[i] = s.apply(&ops[i])
	}
	s.mu.Unlock()
	return out, s.leave("apply", ops)
}

func (s *store) find(id string) *sdk.Entry {
	for _, e := range s.rows {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// live returns the queue of a target in seq order.
func (s *store) live(lane, target string) []*sdk.Entry {
	var q []*sdk.Entry
	for _, e := range s.rows {
		if e.Lane == lane && e.Target == target && e.State.Live() {
			q = append(q, e)
		}
	}
	slices.SortFunc(q, func(a, b *sdk.Entry) int { return int(a.Seq - b.Seq) })
	return q
}

func (s *store) apply(op *sdk.Op) sdk.OpResult {
	if op.Kind == sdk.OpAppend {
		return s.add(op.Entry)
	}
	if h := s.lanes[op.Lane]; op.Kind.Fenced() && (h == nil || h.owner == "" || h.epoch != op.Epoch) {
		return sdk.OpResult{Code: sdk.OpFenced, ID: op.ID}
	}
	if op.Kind == sdk.OpWake {
		res := sdk.OpResult{Code: sdk.OpAlready}
		for _, e := range s.live(op.Lane, op.Target) {
			if e.State == sdk.StateWaiting {
				e.State, e.DueAt, res.Code = sdk.StatePending, time.Now(), sdk.OpApplied
			}
		}
		return res
	}
	e := s.find(op.ID)
	if e == nil {
		return sdk.OpResult{Code: sdk.OpNotFound, ID: op.ID}
	}
	code := s.change(e, op)
	return sdk.OpResult{Code: code, ID: e.ID, State: e.State, Seq: e.Seq, BrokerMessageID: e.BrokerMessageID}
}

func (s *store) add(e *sdk.Entry) sdk.OpResult {
	for _, r := range s.rows {
		if r.ID == e.ID || r.Mesh == e.Mesh && r.Sender == e.Sender && r.ClientMessageID == e.ClientMessageID {
			return sdk.OpResult{
				Code: sdk.OpExists, ID: r.ID, State: r.State, Seq: r.Seq, BrokerMessageID: r.BrokerMessageID,
				SameFingerprint: string(r.Fingerprint) == string(e.Fingerprint),
			}
		}
	}
	if s.full {
		return sdk.OpResult{Code: sdk.OpFull, Detail: "no room"}
	}
	prev := int64(0)
	if q := s.live(e.Lane, e.Target); len(q) > 0 {
		prev = q[len(q)-1].Seq
	}
	s.seq++
	c := copyOf(e, true)
	c.Seq, c.State, c.DueAt = s.seq, sdk.StatePending, time.Now()
	s.rows = append(s.rows, c)
	return sdk.OpResult{Code: sdk.OpStored, ID: e.ID, Seq: c.Seq, Prev: prev, State: c.State}
}

func (s *store) change(e *sdk.Entry, op *sdk.Op) sdk.OpCode {
	to := map[sdk.OpKind]sdk.EntryState{
		sdk.OpAccepted: sdk.StateAccepted, sdk.OpDelivered: sdk.StateDelivered, sdk.OpDefer: sdk.StatePending,
		sdk.OpWait: sdk.StateWaiting, sdk.OpDie: sdk.StateDead, sdk.OpExpire: sdk.StateExpired,
		sdk.OpCancel: sdk.StateCancelled, sdk.OpRequeue: sdk.StatePending, sdk.OpResend: sdk.StatePending,
	}[op.Kind]
	live := e.State.Live()
	switch op.Kind {
	case sdk.OpAccepted:
		if e.State == sdk.StateAccepted || e.State == sdk.StateDelivered {
			return sdk.OpAlready
		}
		e.BrokerMessageID, e.AcceptedAt = op.BrokerMessageID, op.At
		if live && op.Final {
			e.Body = nil
		}
	case sdk.OpDelivered:
		if live = e.State == sdk.StateAccepted; live {
			e.DeliveredAt, e.Body = op.At, nil
		}
	case sdk.OpResend:
		if live {
			return sdk.OpAlready
		}
		if live = e.State == sdk.StateAccepted && len(e.Body) > 0; live {
			s.seq++
			e.Seq, e.DueAt, e.BrokerMessageID, e.AcceptedAt = s.seq, time.Now(), "", time.Time{}
		}
	case sdk.OpDefer, sdk.OpWait:
		if live {
			e.DueAt, e.LastError = time.Now().Add(op.After), op.Error
			if op.Count {
				e.Attempts++
			}
		}
	case sdk.OpDie:
		e.LastError = op.Error
	case sdk.OpCancel:
		live = live || e.State == sdk.StateDead || e.State == sdk.StateExpired
	case sdk.OpRequeue:
		if live {
			return sdk.OpAlready
		}
		live = len(e.Body) > 0 && e.State != sdk.StateAccepted && e.State != sdk.StateDelivered
		if live {
			s.seq++
			e.Seq, e.Attempts, e.NotAfter, e.DueAt = s.seq, 0, op.NotAfter, time.Now()
		}
	}
	if e.State == to && to != sdk.StatePending && to != sdk.StateWaiting {
		return sdk.OpAlready
	}
	if !live {
		return sdk.OpConflict
	}
	e.State = to
	return sdk.OpApplied
}

func (s *store) Acquire(ctx context.Context, req sdk.AcquireRequest) (sdk.Lease, error) {
	if err := s.enter(ctx, "acquire", nil); err != nil {
		return sdk.Lease{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.lanes[req.Lane]
	if h == nil {
		h = &holder{}
		s.lanes[req.Lane] = h
	}
	now := time.Now()
	live := h.owner != "" && now.Before(h.expires)
	if live && h.owner != req.Owner {
		return sdk.Lease{Held: true, HeldBy: h.owner, RetryIn: h.expires.Sub(now)}, nil
	}
	same := h.owner == req.Owner && h.incarnation == req.Incarnation
	h.owner, h.incarnation, h.expires = req.Owner, req.Incarnation, now.Add(req.TTL)
	if !same {
		h.epoch++
	}
	return sdk.Lease{Epoch: h.epoch, Stolen: live && !same}, nil
}

func (s *store) Release(ctx context.Context, req sdk.ReleaseRequest) error {
	if err := s.enter(ctx, "release", nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.lanes[req.Lane]; h != nil && h.owner == req.Owner && h.incarnation == req.Incarnation && h.epoch == req.Epoch {
		h.owner = ""
	}
	return nil
}

func (s *store) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	if err := s.enter(ctx, "fetch", nil); err != nil {
		return sdk.FetchResult{}, err
	}
	res, err := s.fetch(req)
	if err != nil {
		return res, err
	}
	if s.fetched != nil {
		s.fetched(&res)
	}
	return res, s.leave("fetch", nil)
}

func (s *store) fetch(req sdk.FetchRequest) (sdk.FetchResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.lanes[req.Lane]; h == nil || h.owner == "" || h.epoch != req.Epoch {
		return sdk.FetchResult{}, sdk.Errorf(sdk.CodeFenced, "fenced", "epoch %d is over", req.Epoch)
	}
	var targets []string
	for _, e := range s.rows {
		if e.Lane == req.Lane && e.State.Live() && !slices.Contains(targets, e.Target) && !slices.Contains(req.Held, e.Target) {
			targets = append(targets, e.Target)
		}
	}
	slices.SortStableFunc(targets, func(a, b string) int {
		return s.live(req.Lane, a)[0].DueAt.Compare(s.live(req.Lane, b)[0].DueAt)
	})
	res := sdk.FetchResult{NextDue: -1}
	left := req.MaxRows
	for _, t := range targets {
		q := s.live(req.Lane, t)
		if in := time.Until(q[0].DueAt); in > 0 {
			res.NextDue = in
			break
		}
		if len(res.Queues) == req.MaxQueues || left == 0 {
			res.More = true
			break
		}
		n := min(len(q), left)
		left -= n
		out := sdk.Queue{Target: t, More: n < len(q)}
		for _, e := range q[:n] {
			out.Rows = append(out.Rows, *copyOf(e, true))
		}
		res.Queues = append(res.Queues, out)
	}
	return res, nil
}

func (s *store) Lookup(ctx context.Context, keys []sdk.MessageKey) ([]*sdk.Entry, error) {
	if err := s.enter(ctx, "lookup", nil); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*sdk.Entry, len(keys))
	for i, k := range keys {
		for _, e := range s.rows {
			if (sdk.MessageKey{Mesh: e.Mesh, Sender: e.Sender, ClientMessageID: e.ClientMessageID}) == k {
				out[i] = copyOf(e, false)
			}
		}
	}
	return out, nil
}

func (s *store) Get(ctx context.Context, ids []string) ([]*sdk.Entry, error) {
	if err := s.enter(ctx, "get", nil); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*sdk.Entry, len(ids))
	for i, id := range ids {
		if e := s.find(id); e != nil {
			out[i] = copyOf(e, true)
		}
	}
	return out, nil
}

func (s *store) List(ctx context.Context, req sdk.ListRequest) (sdk.ListPage, error) {
	if err := s.enter(ctx, "list", nil); err != nil {
		return sdk.ListPage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := req.Limit
	if s.pages > 0 {
		limit = s.pages
	}
	from := 0
	if req.Before != "" {
		if _, err := fmt.Sscan(req.Before, &from); err != nil {
			return sdk.ListPage{}, errors.New("bad page")
		}
	}
	var page sdk.ListPage
	for i := from; i < len(s.rows); i++ {
		e := s.rows[len(s.rows)-1-i]
		if len(req.States) > 0 && !slices.Contains(req.States, e.State) || req.Mesh != "" && req.Mesh != e.Mesh {
			continue
		}
		if len(page.Entries) == limit {
			page.Next = fmt.Sprint(i)
			break
		}
		page.Entries = append(page.Entries, *copyOf(e, false))
	}
	return page, nil
}

// scanPage is how many entries a page of Scan has.
const scanPage = 200

// Scan pages as it was asked: what changes meanwhile is seen as it is then.
func (s *store) Scan(ctx context.Context, req sdk.ScanRequest, page func(sdk.ScanPage) error) error {
	if err := s.enter(ctx, "scan", nil); err != nil {
		return err
	}
	after := int64(0)
	if req.After != "" {
		if _, err := fmt.Sscan(req.After, &after); err != nil {
			return err
		}
	}
	for {
		s.mu.Lock()
		var rows []*sdk.Entry
		for _, e := range s.rows {
			if e.Seq > after && e.Lane == req.Lane && e.State == sdk.StateAccepted && len(e.Body) > 0 {
				rows = append(rows, e)
			}
		}
		slices.SortFunc(rows, func(a, b *sdk.Entry) int { return int(a.Seq - b.Seq) })
		var p sdk.ScanPage
		for _, e := range rows[:min(len(rows), scanPage)] {
			p.Entries = append(p.Entries, *copyOf(e, false))
			after = e.Seq
		}
		s.scanned += len(p.Entries)
		s.mu.Unlock()
		if len(p.Entries) == 0 {
			return s.leave("scan", nil)
		}
		p.Cursor = fmt.Sprint(after)
		if err := page(p); err != nil {
			return err
		}
	}
}

func (s *store) Stats(ctx context.Context, req sdk.StatsRequest) (sdk.OutboxStats, error) {
	if err := s.enter(ctx, "stats", nil); err != nil {
		return sdk.OutboxStats{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := sdk.OutboxStats{States: map[sdk.EntryState]int64{}, Sealed: s.sealed}
	for _, e := range s.rows {
		if req.Lane == "" || e.Lane == req.Lane && e.State.Live() {
			out.States[e.State]++
		}
	}
	return out, nil
}

func (s *store) Prune(ctx context.Context, req sdk.PruneRequest) (int, error) {
	if err := s.enter(ctx, "prune", nil); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	s.rows = slices.DeleteFunc(s.rows, func(e *sdk.Entry) bool {
		gone := !e.State.Live() && e.NotAfter.Before(req.Before) && n < req.Limit
		if gone {
			n++
		}
		return gone
	})
	return n, nil
}

// hold gives the lane to another host.
func (s *store) hold(owner string, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.lanes["team/member"]
	if h == nil {
		h = &holder{}
		s.lanes["team/member"] = h
	}
	h.owner, h.incarnation, h.expires = owner, "1", time.Now().Add(ttl)
	h.epoch++
}

// all are copies of the rows, as they were appended.
func (s *store) all() []*sdk.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*sdk.Entry, len(s.rows))
	for i, e := range s.rows {
		out[i] = copyOf(e, true)
	}
	return out
}

// state is a row's state, "" if there is none.
func (s *store) state(id string) sdk.EntryState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.find(id); e != nil {
		return e.State
	}
	return ""
}

// entry is a copy of a row that must be there.
func (s *store) entry(id string) *sdk.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copyOf(s.find(id), true)
}
