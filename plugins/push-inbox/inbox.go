package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/sdk"
)

// options is the config block.
type options struct {
	Path        sdk.Path      `mesh:"path" default:"inbox.db" doc:"The database file."`
	Retention   time.Duration `mesh:"retention" default:"720h" doc:"How long messages are kept, seen or not."`
	MaxMessages int64         `mesh:"max_messages" default:"1000000" doc:"Messages that are kept. The oldest seen ones make room; while all are unread, new ones wait in the host."`
}

func validate(_ context.Context, o options) sdk.Diagnostics {
	var d sdk.Diagnostics
	if o.Retention < time.Hour {
		d = append(d, sdk.Invalid([]string{"retention"}, "retention is too short", `Messages are pruned hourly; set at least "1h".`))
	}
	if o.MaxMessages < 1 {
		d = append(d, sdk.Invalid([]string{"max_messages"}, "max_messages is too small", "At least 1 message must fit. Leave it out for the default."))
	}
	return d
}

// inbox is the plugin: a store that Configure opens and Stop closes, with one
// goroutine that prunes and tells who follows.
type inbox struct {
	*store
	path  string
	log   hclog.Logger
	full  atomic.Bool // the last push that was new found no room
	fresh chan string // the id of the newest message that nobody was told of; holds 1
	halt  context.CancelFunc
	done  sync.WaitGroup
}

func (b *inbox) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:        "inbox",
		Version:     "0.1.0",
		Doc:         "Stores messages in a SQLite file, and lists them.",
		Config:      sdk.Configured(b.configure, validate),
		Stop:        b.stop,
		PushHandler: b,
		Wants:       []sdk.Want{{Kinds: []sdk.PushKind{sdk.PushDirect, sdk.PushBroadcast, sdk.PushWebhook}}},
		Feature:     b.feature(),
	}
}

// configure opens the file. The same file again gets new limits only; another
// one is open before the old one closes.
func (b *inbox) configure(ctx context.Context, c options, env sdk.Env) error {
	path, old := string(c.Path), b.store
	if old != nil && path == b.path {
		if err := old.limit(ctx, c.MaxMessages); err != nil {
			return err
		}
		old = nil
	} else {
		next, err := openStore(ctx, path, c.MaxMessages, time.Now)
		if err != nil {
			return err
		}
		b.store, b.path = next, path
	}
	b.log = env.Logger
	b.rest()
	if old != nil {
		if err := old.Close(); err != nil {
			env.Logger.Warn("the former inbox file did not close in good order", "error", err)
		}
	}
	b.start(c.Retention, env.Host, env.Logger)
	return nil
}

// start begins the goroutine that works beside the calls.
func (b *inbox) start(retention time.Duration, host sdk.Host, log hclog.Logger) {
	ctx, cancel := context.WithCancel(context.Background())
	b.halt, b.fresh = cancel, make(chan string, 1)
	k := keeper{store: b.store, retention: retention, fresh: b.fresh, host: host, log: log}
	b.done.Go(func() { k.run(ctx) })
}

// rest ends that goroutine, if it runs, and waits for it.
func (b *inbox) rest() {
	if b.halt != nil {
		b.halt()
		b.done.Wait()
		b.halt = nil
	}
}

func (b *inbox) stop() error {
	b.rest()
	if b.store == nil {
		return nil
	}
	err := b.store.Close()
	b.store = nil
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// Handle implements sdk.PushHandler. Where there is no room it answers
// unavailable, which costs the pushes no attempt: they wait in the host for as
// long as it takes. Those of the batch that did fit come again and are known.
func (b *inbox) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	added, refused, err := b.add(ctx, pushes)
	if err != nil {
		return nil, err
	}
	if len(added) > 0 {
		b.announce(added[len(added)-1])
	}
	switch {
	case refused > 0:
		err := sdk.Errorf(sdk.CodeUnavailable, "inbox_full", "the inbox holds max_messages messages, all of them unread").
			WithNext("Mark some as seen or delete them: meshhost inbox seen ID, meshhost inbox delete ID. Or raise max_messages.")
		if !b.full.Swap(true) {
			b.log.Warn("new messages wait in the host: "+err.Message, "next", err.Next)
		}
		return nil, err
	case len(added) > 0 && b.full.Swap(false):
		b.log.Info("the inbox has room again")
	}
	outcomes := make([]sdk.Outcome, len(pushes))
	for i := range outcomes {
		outcomes[i].Decision = sdk.Ack
	}
	return outcomes, nil
}

// announce leaves word for the keeper without waiting: one event for many
// messages says as much, since who follows asks for all that is new.
func (b *inbox) announce(id string) {
	for {
		select {
		case b.fresh <- id:
			return
		default:
		}
		select {
		case <-b.fresh: // an older one, not told yet
		default:
		}
	}
}

// keeper does what is nobody's call: it prunes at the start and hourly, and
// publishes that messages were stored.
type keeper struct {
	store     *store
	retention time.Duration
	fresh     <-chan string
	host      sdk.Host
	log       hclog.Logger
}

// emitTimeout bounds an Emit: the next event says as much as a lost one.
const emitTimeout = 2 * time.Second

func (k *keeper) run(ctx context.Context) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	k.prune(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
			k.prune(ctx)
		case id := <-k.fresh:
			k.emit(ctx, id)
		}
	}
}

func (k *keeper) prune(ctx context.Context) {
	before := k.store.now().Add(-k.retention)
	count, err := k.store.prune(ctx, before, scope{})
	if err == nil {
		err = k.store.forget(ctx, before)
	}
	if err == nil {
		err = k.store.forgetExcess(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.log.Warn("old messages could not be pruned; the next try is in an hour", "error", err)
	case count > 0:
		k.log.Info("pruned old messages", "count", count)
	}
}

// stored is the event that new messages are there.
type stored struct {
	ID string `json:"id"` // of the newest
}

func (k *keeper) emit(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, emitTimeout)
	defer cancel()
	data, err := json.Marshal(stored{ID: id})
	if err == nil {
		err = k.host.Emit(ctx, "stored", jsontext.Value(data))
	}
	if err != nil && ctx.Err() == nil {
		k.log.Debug("the event inbox.stored was not published", "error", err)
	}
}
