package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
)

// driver sends to a daemon and keeps its own record of what it tried and what
// was accepted. A 202 is a promise; no answer is neither yes nor no.
type driver struct {
	t  testing.TB
	d  *daemon
	to string

	mu        sync.Mutex
	bodies    map[string]string // of every id that was attempted
	accepted  []string          // ids, in the order of their 202s
	refused   int               // answers other than 202
	unknown   int               // no answer
	inflight  atomic.Int64
	stopped   atomic.Bool
	wg        sync.WaitGroup
	lastError error
}

func newDriver(t testing.TB, d *daemon, to string) *driver {
	return &driver{t: t, d: d, to: to, bodies: map[string]string{}}
}

// send makes one attempt with a fresh id; true if it was accepted.
func (v *driver) send() bool {
	id := uuid.NewString()
	body := "message " + id + " ✓"
	v.mu.Lock()
	v.bodies[id] = body
	v.mu.Unlock()
	v.inflight.Add(1)
	code, err := v.d.call("POST", "/v1/send", sendBody{To: v.to, Message: body, ClientMessageID: id}, nil)
	v.inflight.Add(-1)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case code == http.StatusAccepted:
		v.accepted = append(v.accepted, id)
		return true
	case code == 0:
		v.unknown++
	default:
		v.refused++
	}
	v.lastError = err
	return false
}

// must sends n messages one after the other, each of which must be accepted.
func (v *driver) must(n int) {
	v.t.Helper()
	for range n {
		if !v.send() {
			v.t.Fatalf("a send was not accepted: %v", v.lastError)
		}
	}
}

// load keeps workers sending until stop.
func (v *driver) load(workers int, pace func()) {
	for range workers {
		v.wg.Go(func() {
			for !v.stopped.Load() {
				v.send()
				pace()
			}
		})
	}
}

func (v *driver) stop() {
	v.stopped.Store(true)
	v.wg.Wait()
}

func (v *driver) acceptedIDs() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.accepted)
}

// check compares the driver's record with a store: lost are accepted ids that
// are not there, ghosts are ids there that were never attempted, wrong are
// bodies that differ.
func (v *driver) check(stored map[string]string) (lost, ghost, wrong int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, id := range v.accepted {
		if _, ok := stored[id]; !ok {
			lost++
			if lost <= 5 {
				errs = append(errs, fmt.Errorf("lost: %s", id))
			}
		}
	}
	for id, body := range stored {
		want, ok := v.bodies[id]
		if !ok {
			ghost++
			errs = append(errs, fmt.Errorf("ghost: %s", id))
			continue
		}
		if want != body {
			wrong++
			errs = append(errs, fmt.Errorf("body of %s is %q, sent was %q", id, body, want))
		}
	}
	return lost, ghost, wrong, errors.Join(errs...)
}
