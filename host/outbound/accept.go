package outbound

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/plugin"
	"github.com/meshhost/meshhost/sdk"
)

// Request is one message as a local program asks for it (PROTOCOL 10.4).
type Request struct {
	// Mesh may be empty where there is only one.
	Mesh    string
	To      string
	Message string
	// Priority is now, next or low; empty: next.
	Priority string
	// Meta is a JSON object or empty; like ReplyToID it enters the fingerprint
	// and is not transmitted.
	Meta      jsontext.Value
	ReplyToID string
	// ClientMessageID makes the request repeatable; empty: the host makes one.
	ClientMessageID string
}

// Reply says that a message is kept, or was before.
type Reply struct {
	ID              string
	ClientMessageID string
	// Status is "queued", "inflight" or "done".
	Status string
	// Duplicate is true for a replay of a message that the mesh has taken.
	Duplicate       bool
	BrokerMessageID string
	// Durable is false where the outbox forgets at the plugin's end.
	Durable bool
	// Target is the wire's targetSpec, Name the peer's display name, From where
	// it was found.
	Target string
	Name   string
	From   string
}

// Conflict is a client_message_id used again for something else, or for a row
// that will not be sent (PROTOCOL 10.4).
type Conflict struct {
	// Kind is the table's word, such as "outbox_dead_fingerprint_match".
	Kind              string
	FingerprintPrefix string // 16 hex digits of the stored message
	BrokerMessageID   string
	ID                string
}

func (c *Conflict) Error() string {
	return "the client_message_id was used before: " + c.Kind
}

// Accept keeps a message. It returns only after the backend has stored it.
// Errors are *Conflict, *sdk.Error, or what Names says of the target. With
// Reason outcome_unknown the message may be stored, and the Reply has its
// client_message_id; with any other error it is not and will not be.
func (o *Outbound) Accept(ctx context.Context, req Request) (Reply, error) {
	a, err := o.mesh(req.Mesh)
	if err != nil {
		return Reply{}, err
	}
	if err := check(&req); err != nil {
		return Reply{}, err
	}
	fp, err := fingerprint(&req)
	if err != nil {
		return Reply{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	b, leave, err := a.enter(ctx)
	if err != nil {
		return Reply{}, err
	}
	defer leave()
	if req.ClientMessageID != "" {
		if rep, done, err := o.replay(ctx, a, b, req.ClientMessageID, fp); done || err != nil {
			return rep, err
		}
	}
	received := time.Now()
	target, err := o.resolve(ctx, a, req.To)
	if err != nil {
		return Reply{}, err
	}
	e, err := o.entry(a, &req, fp, target)
	if err != nil {
		return Reply{}, err
	}
	a.trail.begin(e.ID, e.ClientMessageID, arrival(received, &req, &target)...)
	res, err := b.committer.Append(ctx, *e)
	if !kept(e, res, err) {
		a.trail.drop(e.ID)
	}
	if err != nil {
		return Reply{ID: e.ID, ClientMessageID: e.ClientMessageID}, err
	}
	rep, err := o.answer(ctx, a, b, e, res)
	rep.Target, rep.Name, rep.From = target.Spec, target.Name, target.From
	return rep, err
}

// resolve finds who is meant.
func (o *Outbound) resolve(ctx context.Context, a *attached, to string) (Target, error) {
	target, err := o.opts.Names.Resolve(ctx, a.Name, to)
	if err != nil && plugin.OutcomeUnknown(err) { // of the look-up, that is
		err = unstored("target_unresolved", "who is meant could not be found out", err)
	}
	return target, err
}

// kept reports whether e is in the outbox after its append, or may be.
func kept(e *sdk.Entry, res sdk.OpResult, err error) bool {
	var known *sdk.Error
	if err != nil {
		return errors.As(err, &known) && known.Reason == "outcome_unknown"
	}
	return res.Code == sdk.OpStored || res.ID == e.ID
}

// unstored makes the error of a step before the append: whatever became of its
// own call, nothing was stored.
func unstored(reason, what string, err error) error {
	return sdk.Errorf(sdk.CodeUnavailable, reason, "%s: %v", what, err).WithNext("Nothing was stored. Try again.")
}

// mesh picks the mesh of a request.
func (o *Outbound) mesh(name string) (*attached, error) {
	if err := o.running(); err != nil {
		return nil, err
	}
	if name == "" && len(o.meshes) == 1 {
		for _, a := range o.meshes {
			return a, nil
		}
	}
	if a := o.meshes[name]; a != nil {
		return a, nil
	}
	names := make([]string, 0, len(o.meshes))
	for n := range o.meshes {
		names = append(names, n)
	}
	slices.Sort(names)
	if name == "" {
		return nil, sdk.Errorf(sdk.CodeInvalid, "mesh_required", "several meshes are attached: %s", strings.Join(names, ", ")).
			WithNext("Name one: -mesh " + names[0] + ".")
	}
	return nil, sdk.Errorf(sdk.CodeNotFound, "mesh_not_attached", "no mesh %q is attached", name).
		WithNext("Attached: " + strings.Join(names, ", ") + ".")
}

func check(req *Request) error {
	if req.Priority == "" {
		req.Priority = "next"
	}
	switch {
	case len(req.Message) > MaxTextBytes:
		return sdk.Errorf(sdk.CodeInvalid, "payload_too_large", "the text has %d bytes; the limit is %d", len(req.Message), MaxTextBytes).
			WithNext("Send it in parts, or put it where the peer can fetch it and send the address.")
	case !utf8.ValidString(req.Message):
		return sdk.Errorf(sdk.CodeInvalid, "invalid_text", "the text is not valid UTF-8").WithNext("Encode binary data, for example as base64.")
	case !utf8.ValidString(req.To) || !utf8.ValidString(req.ReplyToID) || len(req.To) > maxName || len(req.ReplyToID) > maxName:
		return sdk.Errorf(sdk.CodeInvalid, "bad_name", "to and reply_to_id may have %d bytes of UTF-8 each", maxName).
			WithNext("Use a name, a key, @group or *.")
	case req.To == "":
		return sdk.Errorf(sdk.CodeInvalid, "to_required", "no recipient is named").WithNext("Set \"to\" to a name, a key, @group or *.")
	case len(req.ClientMessageID) > MaxClientMessageID || !utf8.ValidString(req.ClientMessageID):
		return sdk.Errorf(sdk.CodeInvalid, "bad_client_message_id", "client_message_id must be at most %d bytes of UTF-8", MaxClientMessageID).
			WithNext("Use a UUID.")
	case req.Priority != "now" && req.Priority != "next" && req.Priority != "low":
		return sdk.Errorf(sdk.CodeInvalid, "bad_priority", "no priority %q", req.Priority).WithNext("Use now, next or low.")
	}
	return nil
}

// fingerprint identifies what was typed (PROTOCOL 4.9).
func fingerprint(req *Request) ([32]byte, error) {
	meta := ""
	if len(req.Meta) > 0 {
		m, err := identity.CanonicalMeta(req.Meta)
		if err != nil {
			return [32]byte{}, sdk.Errorf(sdk.CodeInvalid, "bad_meta", "meta: %v", err).WithNext("Send a JSON object without such keys.")
		}
		meta = m
	}
	kind, ref := "dm", req.To
	if group, ok := strings.CutPrefix(req.To, "@"); ok {
		kind, ref = "topic", group
	} else if req.To == "*" {
		kind = "topic"
	}
	return identity.Fingerprint(kind, ref, req.ReplyToID, req.Priority, meta, []byte(req.Message)), nil
}

// entry seals the text for its target and, on top, for the disk.
func (o *Outbound) entry(a *attached, req *Request, fp [32]byte, target Target) (*sdk.Entry, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	var nonce, ciphertext string
	if target.Kind == Direct {
		to, err := identity.ParsePublicKey(target.Spec)
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeInvalid, "bad_key", "%q is not a public key: %v", target.Spec, err).WithNext("Use 64 hex digits.")
		}
		nonce, ciphertext, err = a.Key.Seal(to, []byte(req.Message))
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeInvalid, "bad_key", "nothing can be sealed for %s: %v", target.Spec, err).
				WithNext("Check the key with its owner.")
		}
	} else if nonce, ciphertext, err = identity.EncodePlain([]byte(req.Message)); err != nil {
		return nil, err
	}
	now := time.Now().Truncate(time.Millisecond)
	e := &sdk.Entry{
		ID: id.String(), ClientMessageID: req.ClientMessageID, Fingerprint: fp[:], Mesh: a.Name,
		Sender: MemberSender, Lane: laneName(a.Name), Target: target.Spec, Priority: req.Priority,
		Nonce: nonce, Body: a.atRest.Seal([]byte(ciphertext)), EnqueuedAt: now, NotAfter: now.Add(o.opts.Lifetime),
		State: sdk.StatePending,
	}
	if e.ClientMessageID == "" {
		e.ClientMessageID = e.ID
	}
	if n := frameSize(e, len(ciphertext)); n > maxFrame {
		return nil, sdk.Errorf(sdk.CodeInvalid, "payload_too_large", "the message makes a frame of %d bytes; the limit is %d", n, maxFrame).
			WithNext("Shorten the text, or the client_message_id.")
	}
	return e, nil
}

// frameSize is the size of the frame that carries e, in bytes, or slightly more.
func frameSize(e *sdk.Entry, ciphertext int) int {
	n := frameOverhead + len(e.ID) + len(e.Nonce) + ciphertext + len(e.Priority) + 2*len(e.Fingerprint)
	for _, s := range []string{e.Target, e.ClientMessageID} {
		q, err := jsontext.AppendQuote(nil, s)
		if err != nil {
			return maxFrame + 1 // not UTF-8: no frame can carry it
		}
		n += len(q)
	}
	return n
}

// answer turns the result of an append into a reply.
func (o *Outbound) answer(ctx context.Context, a *attached, b *box, e *sdk.Entry, res sdk.OpResult) (Reply, error) {
	switch res.Code {
	case sdk.OpStored:
		return Reply{ID: e.ID, ClientMessageID: e.ClientMessageID, Status: "queued", Durable: b.Durable()}, nil
	case sdk.OpExists:
		if res.ID == e.ID { // our own append, repeated after an answer got lost
			return Reply{ID: e.ID, ClientMessageID: e.ClientMessageID, Status: o.status(a, e.ID, res.State), Durable: b.Durable()}, nil
		}
		// Somebody else's append of the same client_message_id was quicker.
		if rep, done, err := o.replay(ctx, a, b, e.ClientMessageID, [32]byte(e.Fingerprint)); done || err != nil {
			return rep, err
		}
	}
	return Reply{}, refusal(res)
}

// refusal is the error of an append that was not stored.
func refusal(res sdk.OpResult) error {
	switch res.Code {
	case sdk.OpExists:
		return unstored("outbox_unavailable", "the outbox can't store the message", sdk.Errorf(sdk.CodeUnavailable,
			"vanished", "it has message %s under that client_message_id, and it has not", res.ID))
	case sdk.OpFull:
		return sdk.Errorf(sdk.CodeFull, "outbox_full", "the outbox is full: %s", res.Detail).
			WithNext("Wait until messages have left, or cancel some: meshhost outbox list.")
	case sdk.OpTooLarge:
		return sdk.Errorf(sdk.CodeInvalid, "payload_too_large", "the outbox does not take a message of that size: %s", res.Detail).
			WithNext("Send it in parts.")
	default:
		return sdk.Errorf(sdk.CodeInternal, "bad_reply", "the outbox answered an append with %q", res.Code).
			WithNext("This is a defect of the outbox plugin.")
	}
}

// replay answers a request whose client_message_id is known: to the mesh's
// outbox, or to one that it had before.
func (o *Outbound) replay(ctx context.Context, a *attached, own *box, clientMessageID string, fp [32]byte) (Reply, bool, error) {
	key := sdk.MessageKey{Mesh: a.Name, Sender: MemberSender, ClientMessageID: clientMessageID}
	for _, b := range append([]*box{own}, a.earlier()...) {
		found, err := b.reads.lookup(ctx, key)
		if err != nil {
			return Reply{}, false, unstored("outbox_unavailable", "the outbox can't say whether the message is there already", err)
		}
		if found != nil {
			rep, err := o.replayed(a, b, found, string(found.Fingerprint) == string(fp[:]))
			return rep, true, err
		}
	}
	return Reply{}, false, nil
}

// replayed is the table of PROTOCOL 10.4.
func (o *Outbound) replayed(a *attached, b *box, e *sdk.Entry, same bool) (Reply, error) {
	status := o.status(a, e.ID, e.State)
	word := status
	if word == "queued" {
		word = "pending"
	}
	conflict := func(match string) error {
		return &Conflict{
			Kind: "outbox_" + word + "_fingerprint_" + match, ID: e.ID, BrokerMessageID: e.BrokerMessageID,
			FingerprintPrefix: hex.EncodeToString(e.Fingerprint[:min(8, len(e.Fingerprint))]),
		}
	}
	if !same {
		return Reply{}, conflict("mismatch")
	}
	rep := Reply{
		ID: e.ID, ClientMessageID: e.ClientMessageID, Status: status, BrokerMessageID: e.BrokerMessageID,
		Durable: b.Durable(), Target: e.Target,
	}
	switch status {
	case "queued", "inflight":
		return rep, nil
	case "done":
		rep.Duplicate = true
		return rep, nil
	default:
		return Reply{}, conflict("match")
	}
}

// status is the API's word for a state (ARCHITECTURE 5); what is pending here
// is "queued" to a sender.
func (o *Outbound) status(a *attached, id string, s sdk.EntryState) string {
	switch s {
	case sdk.StateAccepted, sdk.StateDelivered:
		return "done"
	case sdk.StateDead, sdk.StateExpired:
		return "dead"
	case sdk.StateCancelled:
		return "aborted"
	default:
		if a.inFlight(id) {
			return "inflight"
		}
		return "queued"
	}
}
