package plugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// double answers each number with its double and remembers the batches.
type double struct {
	mu      sync.Mutex
	batches [][]int
	enter   chan struct{} // if not nil: each call waits for a value
}

func (d *double) call(ctx context.Context, batch []int) ([]int, error) {
	if d.enter != nil {
		select {
		case <-d.enter:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	out := make([]int, len(batch))
	for i, v := range batch {
		out[i] = 2 * v
	}
	d.mu.Lock()
	d.batches = append(d.batches, append([]int(nil), batch...))
	d.mu.Unlock()
	return out, nil
}

func TestBatcherSendsALoneRequestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		b := NewBatcher(BatchOptions[int]{}, d.call)
		defer b.Close(context.Background())
		begin := time.Now()
		if got, err := b.Do(context.Background(), 21); got != 42 || err != nil {
			t.Fatalf("Do = %d, %v", got, err)
		}
		if d := time.Since(begin); d != 0 {
			t.Fatalf("waited %s: there must be no timer", d)
		}
	})
}

func TestBatcherCallersThatArriveMeanwhileRideTheNextBatchInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{enter: make(chan struct{})}
		b := NewBatcher(BatchOptions[int]{MaxItems: 4}, d.call)
		defer b.Close(context.Background())
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				if got, err := b.Do(context.Background(), i); err != nil || got != 2*i {
					t.Errorf("Do(%d) = %d, %v", i, got, err)
				}
			})
			synctest.Wait() // one by one, so that the order is known
		}
		for range 4 {
			d.enter <- struct{}{}
			synctest.Wait()
		}
		wg.Wait()
		if got, want := fmt.Sprint(d.batches), "[[0] [1 2 3 4] [5 6 7 8] [9]]"; got != want {
			t.Fatalf("batches %s, want %s", got, want)
		}
	})
}

func TestBatcherBoundsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{enter: make(chan struct{})}
		b := NewBatcher(BatchOptions[int]{MaxBytes: 10, Size: func(v int) int { return v }}, d.call)
		defer b.Close(context.Background())
		var wg sync.WaitGroup
		for _, v := range []int{1, 6, 4, 1, 25, 2} {
			wg.Go(func() { _, _ = b.Do(context.Background(), v) })
			synctest.Wait()
		}
		close(d.enter)
		wg.Wait()
		if got, want := fmt.Sprint(d.batches), "[[1] [6 4] [1] [25] [2]]"; got != want {
			t.Fatalf("batches %s, want %s: a batch may exceed the bound by one large item alone", got, want)
		}
	})
}

func TestBatcherEndOfACallersContextEndsItsWaitingOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{enter: make(chan struct{})}
		b := NewBatcher(BatchOptions[int]{}, d.call)
		defer b.Close(context.Background())
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error, 3)
		go func() { _, err := b.Do(ctx, 1); errs <- err }() // in flight
		synctest.Wait()
		go func() { _, err := b.Do(ctx, 2); errs <- err }() // waiting
		synctest.Wait()
		go func() { _, err := b.Do(context.Background(), 3); errs <- err }()
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Fatalf("caller that left got %v", err)
			}
		}
		close(d.enter)
		if err := <-errs; err != nil {
			t.Fatalf("caller that stayed got %v", err)
		}
		synctest.Wait()
		if got, want := fmt.Sprint(d.batches), "[[1] [3]]"; got != want {
			t.Fatalf("batches %s, want %s: a request not yet taken must not be sent", got, want)
		}
	})
}

func TestBatcherAnErrorIsEveryonesAndAWrongCountIsAnError(t *testing.T) {
	boom := errors.New("boom")
	for want, answer := range map[error]func([]int) ([]int, error){
		boom:            func([]int) ([]int, error) { return nil, boom },
		sdk.ErrInternal: func(b []int) ([]int, error) { return make([]int, len(b)+1), nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			enter := make(chan struct{})
			b := NewBatcher(BatchOptions[int]{}, func(_ context.Context, batch []int) ([]int, error) {
				<-enter
				return answer(batch)
			})
			defer b.Close(context.Background())
			var wg sync.WaitGroup
			for i := range 3 { // one alone, two together
				wg.Go(func() {
					if _, err := b.Do(context.Background(), i); !errors.Is(err, want) {
						t.Errorf("Do(%d): %v, want %v", i, err, want)
					}
				})
				synctest.Wait()
			}
			close(enter)
			wg.Wait()
		})
	}
}

func TestBatcherRefusesMoreThanMayWaitAndAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{enter: make(chan struct{})}
		b := NewBatcher(BatchOptions[int]{MaxWaiting: 2}, d.call)
		var wg sync.WaitGroup
		for i := range 3 { // one in flight, two waiting
			wg.Go(func() {
				if _, err := b.Do(context.Background(), i); err != nil {
					t.Errorf("Do(%d): %v", i, err)
				}
			})
			synctest.Wait()
		}
		if _, err := b.Do(context.Background(), 9); !errors.Is(err, sdk.ErrFull) {
			t.Fatalf("fourth got %v", err)
		}
		close(d.enter)
		b.Close(context.Background()) // those that wait are served
		wg.Wait()
		if _, err := b.Do(context.Background(), 9); !errors.Is(err, sdk.ErrUnavailable) {
			t.Fatalf("after Close got %v", err)
		}
	})
}

func TestBatcherCloseCancelsAHungCallWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &double{enter: make(chan struct{})}
		b := NewBatcher(BatchOptions[int]{}, d.call)
		errs := make(chan error, 1)
		go func() { _, err := b.Do(context.Background(), 1); errs <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.Close(ctx)
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestBatcherLanesRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		b := NewBatcher(BatchOptions[int]{Lanes: 3, MaxItems: 1}, func(_ context.Context, batch []int) ([]int, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second) // virtual: the call's duration
			now.Add(-1)
			return batch, nil
		})
		defer b.Close(context.Background())
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if _, err := b.Do(context.Background(), i); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 || time.Since(begin) != 2*time.Second {
			t.Fatalf("%d at once, %s", most.Load(), time.Since(begin))
		}
	})
}
