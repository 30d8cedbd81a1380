package inbound

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

// cover says what hides the text of a push in the frame.
type cover int

const (
	coverNone    cover = iota // plaintext: the record is sealed at rest
	coverBox                  // the box of the message itself, which a member key opens for as long as the mesh is configured
	coverSession              // a box that a session's key opened: that key may be gone before a handler has seen the push
)

// push makes of a delivery what handlers get. The wire has no field for what a push is; this is where it is decided
// (PROTOCOL 5.1, 6).
func (r *Receiver) push(d *Delivery) (*sdk.Push, cover) {
	candidates := r.opts.Keys.Candidates(d.Mesh, d.Identity)
	p := &sdk.Push{
		Mesh: d.Mesh, Recipient: d.Identity.String(), RecipientKind: RecipientMember,
		MessageID: d.MessageID, ClientMessageID: d.ClientMessageID,
		Sender: d.Sender, SenderMember: d.SenderMember, SenderName: d.SenderName,
		Priority: d.Priority, Subtype: d.Subtype, Event: d.Event, EventData: d.EventData, ReplyToID: d.ReplyToID,
		CreatedAt: d.CreatedAt, ReceivedAt: time.Now(), Attempt: 1,
	}
	for _, c := range candidates {
		if c.Key.Public() == d.Identity {
			p.RecipientKind = c.Kind
		}
	}
	if p.SenderName == "" && r.opts.Names != nil && d.Subtype != subtypeSystem && d.Subtype != subtypeWebhook {
		member, name := r.opts.Names.NameOf(d.Mesh, d.Sender)
		p.SenderName = name
		if p.SenderMember == "" {
			p.SenderMember = member
		}
	}
	hidden := r.body(d, p, candidates)
	p.DedupKeys = dedupKeys(d, p.Recipient)
	return p, hidden
}

// body fills in Kind, Body and, when a key opened it, Recipient.
func (r *Receiver) body(d *Delivery, p *sdk.Push, candidates []Candidate) cover {
	switch {
	case d.Subtype == subtypeSystem:
		p.Kind = sdk.PushSystem
		return coverNone
	case d.Subtype == subtypeWebhook:
		p.Kind = sdk.PushWebhook
		return coverNone
	}
	p.Kind = sdk.PushDirect
	if d.Nonce == "" { // a fired reminder (PROTOCOL 6)
		plain, err := identity.DecodePlain(d.Ciphertext)
		if err != nil {
			p.Undecryptable = true
			return coverBox
		}
		p.Body = plain
		return coverNone
	}
	if sender, err := identity.ParsePublicKey(d.Sender); err == nil {
		for _, c := range candidates {
			plain, err := c.Key.Open(sender, d.Nonce, d.Ciphertext)
			if err != nil {
				continue
			}
			p.Body = plain
			p.Recipient, p.RecipientKind = c.Key.Public().String(), c.Kind
			if c.Kind == RecipientSession {
				return coverSession
			}
			return coverBox
		}
	}
	// Only live multicast says who the sender's member is, and only multicast is plaintext under a nonce. Anything else that
	// doesn't open may be a box for a key that we lack, and is never shown as text (PROTOCOL 5.4).
	if d.SenderMember != "" {
		if plain, err := identity.DecodePlain(d.Ciphertext); err == nil && utf8.Valid(plain) {
			p.Kind, p.Body = sdk.PushBroadcast, plain
			return coverNone
		}
	}
	p.Undecryptable = true
	return coverBox
}

// record is the form of a push in the journal.
type record struct {
	Version         int            `json:"v"`
	Identity        string         `json:"identity"`
	MessageID       string         `json:"mid,omitzero"`
	ClientMessageID string         `json:"cid,omitzero"`
	Sender          string         `json:"from"`
	SenderMember    string         `json:"from_member,omitzero"`
	SenderName      string         `json:"from_name,omitzero"`
	Priority        string         `json:"prio,omitzero"`
	Nonce           string         `json:"nonce,omitzero"`
	Ciphertext      string         `json:"ct,omitzero"`
	ReplyToID       string         `json:"reply,omitzero"`
	CreatedAt       time.Time      `json:"at,omitzero"`
	Subtype         string         `json:"sub,omitzero"`
	Event           string         `json:"event,omitzero"`
	EventData       jsontext.Value `json:"data,omitzero"`
	// Opened is set when a key had opened it; Recipient then is that key. Body is present for a session's alone.
	Opened        bool   `json:"opened,omitzero"`
	Recipient     string `json:"to,omitzero"`
	RecipientKind string `json:"to_kind,omitzero"`
	Body          []byte `json:"body,omitzero"`
}

// frame encodes a push for the journal, sealed at rest unless the message's own box hides the text.
func (r *Receiver) frame(d *Delivery, p *sdk.Push, hidden cover) (frame []byte, sealed bool, err error) {
	rec := record{
		Version: 1, Identity: d.Identity.String(), MessageID: d.MessageID, ClientMessageID: d.ClientMessageID,
		Sender: d.Sender, SenderMember: d.SenderMember, SenderName: d.SenderName, Priority: d.Priority,
		Nonce: d.Nonce, Ciphertext: d.Ciphertext, ReplyToID: d.ReplyToID, CreatedAt: d.CreatedAt,
		Subtype: d.Subtype, Event: d.Event, EventData: d.EventData,
	}
	if hidden != coverNone && !p.Undecryptable {
		rec.Opened, rec.Recipient, rec.RecipientKind = true, p.Recipient, p.RecipientKind
	}
	if hidden == coverSession {
		rec.Body, rec.Nonce, rec.Ciphertext = append([]byte{}, p.Body...), "", ""
	}
	frame, err = json.Marshal(&rec, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, false, fmt.Errorf("encode: %w", err)
	}
	if hidden == coverBox {
		return frame, false, nil
	}
	at := r.opts.Keys.AtRest(d.Mesh)
	if at == nil {
		return nil, false, fmt.Errorf("no key of mesh %q to seal it with", d.Mesh)
	}
	return at.Seal(frame), true, nil
}

// restore makes a push of what the journal holds. An error is final: the keys that it needs are not there.
func (r *Receiver) restore(mesh string, id [16]byte, received time.Time, sealed bool, frame []byte) (*sdk.Push, error) {
	if sealed {
		at := r.opts.Keys.AtRest(mesh)
		if at == nil {
			return nil, fmt.Errorf("mesh %q is not configured any more", mesh)
		}
		plain, err := at.Open(frame)
		if err != nil {
			return nil, fmt.Errorf("the key of mesh %q has changed: %w", mesh, err)
		}
		frame = plain
	}
	var rec record
	if err := json.Unmarshal(frame, &rec, jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, fmt.Errorf("unreadable in the journal: %w", err)
	}
	receiving, err := identity.ParsePublicKey(rec.Identity)
	if err != nil || rec.Version != 1 {
		return nil, fmt.Errorf("unreadable in the journal: record version %d", rec.Version)
	}
	d := Delivery{
		Mesh: mesh, Identity: receiving, MessageID: rec.MessageID, ClientMessageID: rec.ClientMessageID,
		Sender: rec.Sender, SenderMember: rec.SenderMember, SenderName: rec.SenderName, Priority: rec.Priority,
		Nonce: rec.Nonce, Ciphertext: rec.Ciphertext, ReplyToID: rec.ReplyToID, CreatedAt: rec.CreatedAt,
		Subtype: rec.Subtype, Event: rec.Event, EventData: rec.EventData,
	}
	p, _ := r.push(&d)
	if rec.Opened {
		if rec.Body == nil && p.Undecryptable {
			return nil, fmt.Errorf("the %s key %s that it was for is not configured any more", rec.RecipientKind, rec.Recipient)
		}
		if rec.Body != nil {
			p.Kind, p.Body, p.Undecryptable = sdk.PushDirect, rec.Body, false
		}
		p.Recipient, p.RecipientKind = rec.Recipient, rec.RecipientKind
		p.DedupKeys = dedupKeys(&d, p.Recipient)
	}
	p.ID, p.ReceivedAt = formatID(id), received
	return p, nil
}

// newID makes a time-ordered id, so that neighbours in time are neighbours in the handlers' tables.
func newID() [16]byte {
	id, err := uuid.NewV7()
	if err != nil {
		panic("inbound: the system gives no random bytes: " + err.Error())
	}
	return id
}

func formatID(id [16]byte) string { return uuid.UUID(id).String() }
