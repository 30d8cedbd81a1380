package outboxtest

import (
	"fmt"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// model is an outbox in a few lines: a list in the order of seq, searched
// from the front. It shares the transition table with the state cases and
// nothing with any backend.
type model struct {
	rows  []*sdk.Entry
	lease modelLease
}

type modelLease struct {
	owner, incarnation string
	epoch              int64
	until              time.Time
}

func (m *model) find(id string) *sdk.Entry {
	for _, e := range m.rows {
		if e.ID == id {
			return e
		}
	}
	return nil
}

// apply changes the model and returns what a backend must answer; seq is what
// the backend gave, since only its order is promised.
func (m *model) apply(op sdk.Op, now time.Time, seq int64) sdk.OpResult {
	if op.Kind == sdk.OpAppend {
		return m.append(op.Entry, now, seq)
	}
	if op.Kind.Fenced() && (m.lease.owner == "" || op.Epoch != m.lease.epoch) {
		return sdk.OpResult{Code: sdk.OpFenced}
	}
	if op.Kind == sdk.OpWake {
		code := sdk.OpAlready
		for _, e := range m.rows {
			if e.Target == op.Target && e.State == sdk.StateWaiting {
				e.State, e.DueAt, code = sdk.StatePending, now, sdk.OpApplied
			}
		}
		return sdk.OpResult{Code: code}
	}
	e := m.find(op.ID)
	if e == nil {
		return sdk.OpResult{Code: sdk.OpNotFound}
	}
	want := table()[op.Kind][column(e)]
	m.change(e, op, want, now, seq)
	return sdk.OpResult{Code: want.code, State: e.State}
}

func (m *model) append(e *sdk.Entry, now time.Time, seq int64) sdk.OpResult {
	for _, have := range m.rows {
		if have.ClientMessageID == e.ClientMessageID {
			return sdk.OpResult{
				Code: sdk.OpExists, ID: have.ID, State: have.State, Seq: have.Seq,
				SameFingerprint: string(have.Fingerprint) == string(e.Fingerprint),
			}
		}
	}
	row := *e
	row.State, row.DueAt, row.Seq = sdk.StatePending, now, seq
	m.rows = append(m.rows, &row)
	return sdk.OpResult{Code: sdk.OpStored, State: sdk.StatePending}
}

// column is the place of a row's state in the transition table.
func column(e *sdk.Entry) int {
	for i, s := range states {
		if s.state == e.State && (s.body == (len(e.Body) > 0) || s.state != sdk.StateCancelled) {
			return i
		}
	}
	return -1
}

func (m *model) change(e *sdk.Entry, op sdk.Op, want transition, now time.Time, seq int64) {
	if op.Kind == sdk.OpAccepted && want.code != sdk.OpAlready {
		e.BrokerMessageID, e.AcceptedAt = op.BrokerMessageID, op.At
	}
	if want.code != sdk.OpApplied {
		return
	}
	e.State = want.state
	switch op.Kind {
	case sdk.OpDelivered:
		e.DeliveredAt = op.At
	case sdk.OpDefer, sdk.OpWait:
		e.DueAt, e.LastError = now.Add(op.After), op.Error
		if op.Count && op.Kind == sdk.OpDefer {
			e.Attempts++
		}
	case sdk.OpDie:
		e.LastError = op.Error
	case sdk.OpRequeue:
		e.Attempts, e.LastError, e.BrokerMessageID, e.AcceptedAt = 0, "", "", time.Time{}
		e.DueAt, e.NotAfter, e.Seq = now, op.NotAfter, seq
		m.last(e)
	}
	if !want.body || op.Kind == sdk.OpAccepted && op.Final {
		e.Body = nil
	}
}

// last gives e the place behind all others, as its new seq says.
func (m *model) last(e *sdk.Entry) {
	m.rows = append(slices.DeleteFunc(m.rows, func(have *sdk.Entry) bool { return have == e }), e)
}

func (m *model) acquire(owner, incarnation string, ttl time.Duration, now time.Time) sdk.Lease {
	l := &m.lease
	live := l.owner != "" && now.Before(l.until)
	switch {
	case l.owner == owner && l.incarnation == incarnation:
		l.until = now.Add(ttl)
		return sdk.Lease{Epoch: l.epoch}
	case live && l.owner != owner:
		return sdk.Lease{Held: true, HeldBy: l.owner, RetryIn: l.until.Sub(now)}
	}
	*l = modelLease{owner: owner, incarnation: incarnation, epoch: l.epoch + 1, until: now.Add(ttl)}
	return sdk.Lease{Epoch: l.epoch, Stolen: live}
}

func (m *model) release(owner, incarnation string, epoch int64) {
	l := &m.lease
	if l.owner == owner && l.incarnation == incarnation && l.epoch == epoch {
		*l = modelLease{epoch: l.epoch}
	}
}

// queue is the live rows of a target in seq order.
func (m *model) queue(target string) []*sdk.Entry {
	var rows []*sdk.Entry
	for _, e := range m.rows {
		if e.Target == target && e.State.Live() {
			rows = append(rows, e)
		}
	}
	slices.SortFunc(rows, func(x, y *sdk.Entry) int { return bySeq(*x, *y) })
	return rows
}

// due lists, for all targets but the held ones, the heads that are due in the
// order of Fetch, and the time to the next.
func (m *model) due(targets, held []string, now time.Time) (due []*sdk.Entry, next time.Duration) {
	next = -1
	for _, target := range targets {
		rows := m.queue(target)
		if len(rows) == 0 || slices.Contains(held, target) {
			continue
		}
		if wait := rows[0].DueAt.Sub(now); wait <= 0 {
			due = append(due, rows[0])
		} else if next < 0 || wait < next {
			next = wait
		}
	}
	slices.SortFunc(due, func(x, y *sdk.Entry) int {
		if c := x.DueAt.Compare(y.DueAt); c != 0 {
			return c
		}
		return bySeq(*x, *y)
	})
	return due, next
}

// prune removes what must go; the model asks for no limit.
func (m *model) prune(before time.Time) int {
	n := len(m.rows)
	m.rows = slices.DeleteFunc(m.rows, func(e *sdk.Entry) bool {
		return !e.State.Live() && e.NotAfter.Before(before)
	})
	return n - len(m.rows)
}

// stats counts the model.
func (m *model) stats() (counts map[sdk.EntryState]int64, bytes int64, oldest time.Time) {
	counts = map[sdk.EntryState]int64{}
	for _, e := range m.rows {
		counts[e.State]++
		bytes += int64(len(e.Body))
		if e.State.Live() && oldest.IsZero() {
			oldest = e.EnqueuedAt
		}
	}
	return counts, bytes, oldest
}

// describe is for failures.
func (m *model) describe() string {
	s := fmt.Sprintf("lease %+v\n", m.lease)
	for _, e := range m.rows {
		s += fmt.Sprintf("%s %s seq %d due %d %s\n", e.ID, e.Target, e.Seq, e.DueAt.UnixMilli(), e.State)
	}
	return s
}
