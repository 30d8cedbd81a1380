package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

const (
	// maxText is the mesh's limit for one message, in bytes.
	maxText = 48_000
	// minEvery keeps two repliers with short periods from talking all day.
	minEvery = time.Minute
)

// config is the config block.
type config struct {
	Text  string        `mesh:"text,required" doc:"What senders are told."`
	Every time.Duration `mesh:"every" default:"24h" doc:"One sender gets one answer in this time, at least 1m."`
}

func validate(_ context.Context, c config) sdk.Diagnostics {
	var diags sdk.Diagnostics
	if c.Text == "" || len(c.Text) > maxText {
		diags = append(diags, sdk.Invalid([]string{"text"}, fmt.Sprintf("text has %d bytes", len(c.Text)), fmt.Sprintf("Write 1 to %d bytes.", maxText)))
	}
	if c.Every < minEvery {
		diags = append(diags, sdk.Invalid([]string{"every"}, "every is too short", fmt.Sprintf("Write at least %q.", minEvery)))
	}
	return diags
}

// handler answers. The SDK lets no call run beside Configure, so config and host
// need no lock.
type handler struct {
	now    func() time.Time
	config config
	host   sdk.Host
}

func (h *handler) configure(_ context.Context, c config, env sdk.Env) error {
	h.config, h.host = c, env.Host
	return nil
}

// Handle is sdk.PushHandler.
func (h *handler) Handle(ctx context.Context, pushes []sdk.Push) ([]sdk.Outcome, error) {
	outcomes := make([]sdk.Outcome, len(pushes))
	for i := range pushes {
		err := h.handle(ctx, &pushes[i])
		switch {
		case err == nil:
			outcomes[i] = sdk.Outcome{Decision: sdk.Ack}
		case errors.Is(err, sdk.ErrUnavailable), errors.Is(err, sdk.ErrTimeout):
			// The whole batch comes again, at no cost; what was answered is
			// recognised by its record or by its client_message_id.
			return nil, err
		case errors.Is(err, sdk.ErrPermission), errors.Is(err, sdk.ErrInvalid):
			outcomes[i] = sdk.Outcome{Decision: sdk.Drop, Reason: words(err)} // no repetition changes that
		default:
			outcomes[i] = sdk.Outcome{Decision: sdk.Retry, Reason: words(err)}
		}
	}
	return outcomes, nil
}

// words are an error with what to do about it: the daemon logs them.
func words(err error) string {
	var e *sdk.Error
	if errors.As(err, &e) && e.Next != "" {
		return err.Error() + " " + e.Next
	}
	return err.Error()
}

// handle answers one message, unless its sender had an answer not long ago.
func (h *handler) handle(ctx context.Context, p *sdk.Push) error {
	key := recordKey(p)
	switch record, err := h.host.StoreGet(ctx, key); {
	case errors.Is(err, sdk.ErrNotFound):
	case err != nil:
		return err
	case h.recent(record):
		return nil
	}
	_, err := h.host.Send(ctx, sdk.SendRequest{
		Mesh: p.Mesh, To: p.Sender, Message: h.config.Text, Priority: "low", ClientMessageID: "away-" + p.ID,
	})
	if err != nil && !errors.Is(err, sdk.ErrConflict) { // a conflict: this message had an answer with another text
		return err
	}
	return h.record(ctx, key)
}

func recordKey(p *sdk.Push) string { return "answered/" + p.Mesh + "/" + p.Sender }

// recent reports whether a record is younger than a period. One that can't be
// read, or is of the future, counts as none.
func (h *handler) recent(record []byte) bool {
	at, err := time.Parse(time.RFC3339, string(record))
	age := h.now().Sub(at)
	return err == nil && age >= 0 && age < h.config.Every
}

// record notes an answer. A full store makes room by what is past its time.
func (h *handler) record(ctx context.Context, key string) error {
	value := []byte(h.now().UTC().Format(time.RFC3339))
	err := h.host.StorePut(ctx, key, value)
	if !errors.Is(err, sdk.ErrFull) {
		return err
	}
	keys, err := h.host.StoreList(ctx, "answered/")
	if err != nil {
		return err
	}
	for _, old := range keys {
		record, err := h.host.StoreGet(ctx, old)
		if err != nil {
			return err
		}
		if h.recent(record) {
			continue
		}
		if err := h.host.StoreDelete(ctx, old); err != nil {
			return err
		}
	}
	return h.host.StorePut(ctx, key, value)
}
