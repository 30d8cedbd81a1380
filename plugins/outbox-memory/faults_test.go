package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/meshhost/meshhost/sdk"
)

// faultEnv names the fault that the store under test has in a child process.
const faultEnv = "OUTBOX_TEST_FAULT"

// faults are backends with one promise broken each.
var faults = map[string]func(*faulty){
	"loses an append":                func(f *faulty) { f.op = f.loseAppend },
	"repeats an append as new":       func(f *faulty) { f.result = asStored },
	"ignores fingerprints":           func(f *faulty) { f.result = func(r *sdk.OpResult) { r.SameFingerprint = true } },
	"ignores the fence":              func(f *faulty) { f.op = f.currentEpoch },
	"lets fenced fetches through":    func(f *faulty) { f.fetch = f.currentFetch },
	"gives one seq twice":            func(f *faulty) { f.result = func(r *sdk.OpResult) { r.Seq /= 2 } },
	"forgets the body of a dead row": func(f *faulty) { f.op = dieAsExpire },
	"ignores held":                   func(f *faulty) { f.fetch = func(r *sdk.FetchRequest) { r.Held = nil } },
	"ignores bounds":                 func(f *faulty) { f.fetch = func(r *sdk.FetchRequest) { r.MaxRows *= 100; r.MaxQueues *= 100 } },
	"counts every defer":             func(f *faulty) { f.op = func(op *sdk.Op) { op.Count = true } },
}

// faulty changes what goes into a store or comes out of it.
type faulty struct {
	*store
	op     func(*sdk.Op)
	result func(*sdk.OpResult)
	fetch  func(*sdk.FetchRequest)
	count  int
}

func asStored(r *sdk.OpResult) {
	if r.Code == sdk.OpExists {
		r.Code = sdk.OpStored
	}
}

func dieAsExpire(op *sdk.Op) {
	if op.Kind == sdk.OpDie {
		op.Kind = sdk.OpExpire
	}
}

// loseAppend turns every twentieth append into one of an entry of the fault's
// own, on another lane.
func (f *faulty) loseAppend(op *sdk.Op) {
	if f.count++; op.Kind == sdk.OpAppend && op.Entry != nil && f.count%20 == 0 {
		e := *op.Entry
		e.ID, e.ClientMessageID, e.Lane = e.ID+"-lost", e.ClientMessageID+"-lost", "nowhere"
		op.Entry = &e
	}
}

func (f *faulty) currentEpoch(op *sdk.Op) {
	if op.Kind.Fenced() {
		f.mu.Lock()
		op.Epoch = f.lease(op.Lane).Epoch
		f.mu.Unlock()
	}
}

func (f *faulty) currentFetch(r *sdk.FetchRequest) {
	f.mu.Lock()
	r.Epoch = f.lease(r.Lane).Epoch
	f.mu.Unlock()
}

func (f *faulty) Apply(ctx context.Context, ops []sdk.Op) ([]sdk.OpResult, error) {
	changed := append([]sdk.Op(nil), ops...)
	for i := range changed {
		if f.op != nil {
			f.op(&changed[i])
		}
	}
	res, err := f.store.Apply(ctx, changed)
	for i := range res {
		if f.result != nil {
			f.result(&res[i])
		}
	}
	return res, err
}

func (f *faulty) Fetch(ctx context.Context, req sdk.FetchRequest) (sdk.FetchResult, error) {
	if f.fetch != nil {
		f.fetch(&req)
	}
	return f.store.Fetch(ctx, req)
}

// broken is s, or s with the fault that the environment names.
func broken(s *store) sdk.Outbox {
	breakIt := faults[os.Getenv(faultEnv)]
	if breakIt == nil {
		return s
	}
	f := &faulty{store: s}
	breakIt(f)
	return f
}

func TestTheSuiteCatchesEveryFault(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range faults {
		t.Run(name, func(t *testing.T) {
			// Without the random case: the named promises must catch it.
			cmd := exec.Command(exe, "-test.run=^TestConformance$/^[^r]", "-test.failfast")
			cmd.Env = append(os.Environ(), faultEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestConformance/") {
				t.Errorf("not caught: %v\n%s", err, out)
			}
		})
	}
}
