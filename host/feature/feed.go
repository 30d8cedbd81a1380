package feature

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/meshhost/meshhost/sdk"
)

// Bounds of one feature's queue and of one OnFrame call.
const (
	feedItems = 1024
	feedBytes = 4 << 20
	feedBatch = 64
)

// item is one thing for a feature; exactly one field is set.
type item struct {
	connected *sdk.Connected
	frame     *sdk.Frame
}

func (it item) size() int {
	if it.frame != nil {
		return len(it.frame.Frame) + 128
	}
	return 128
}

// feed is the queue of one feature, oldest first.
type feed struct {
	entry  Entry
	logger hclog.Logger
	wake   chan struct{}

	mu    sync.Mutex
	items []item
	bytes int
	lost  int
}

func newFeed(e Entry, logger hclog.Logger) *feed {
	return &feed{entry: e, logger: logger, wake: make(chan struct{}, 1)}
}

// offer queues it, if the feature wants it, and drops the oldest when full.
func (f *feed) offer(it item) {
	d := f.entry.Source.Description()
	if it.connected != nil && !d.OnConnect || it.frame != nil && !slices.Contains(d.Watches, it.frame.Type) {
		return
	}
	f.mu.Lock()
	f.items = append(f.items, it)
	f.bytes += it.size()
	for len(f.items) > feedItems || f.bytes > feedBytes && len(f.items) > 1 {
		f.bytes -= f.items[0].size()
		f.items = f.items[1:]
		f.lost++
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take returns the next run of frames, or one connect.
func (f *feed) take() (c *sdk.Connected, frames []sdk.Frame, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, f.lost = f.lost, 0
	for len(f.items) > 0 && len(frames) < feedBatch {
		it := f.items[0]
		if it.connected != nil && len(frames) > 0 {
			break
		}
		f.items = f.items[1:]
		f.bytes -= it.size()
		if it.connected != nil {
			return it.connected, nil, lost
		}
		frames = append(frames, *it.frame)
	}
	return nil, frames, lost
}

func (f *feed) run(ctx context.Context) {
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			c, frames, lost := f.take()
			if lost > 0 {
				f.logger.Warn("a feature is too slow; frames for it were dropped", "feature", f.entry.Name, "dropped", lost)
			}
			var err error
			switch {
			case c != nil:
				err = f.entry.Source.Feature().OnConnect(ctx, *c)
			case len(frames) > 0:
				err = f.entry.Source.Feature().OnFrame(ctx, frames)
			}
			if err != nil {
				f.logger.Warn("a feature did not take what happened", "feature", f.entry.Name, "frames", len(frames), "error", err)
			}
			if c == nil && len(frames) == 0 {
				break
			}
		}
	}
}
