package inbound

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/event"
	"github.com/meshhost/meshhost/sdk"
)

// messageEvent is the data of a message event (PROTOCOL 10.5). A body that isn't UTF-8 is shown with replacement characters;
// handlers get its bytes.
type messageEvent struct {
	ID                 string    `json:"id"`
	Mesh               string    `json:"mesh"`
	Kind               string    `json:"kind"`
	ClientMessageID    string    `json:"client_message_id,omitzero"`
	BrokerMessageID    string    `json:"broker_message_id"`
	SenderPubkey       string    `json:"sender_pubkey"`
	SenderMemberPubkey string    `json:"sender_member_pubkey,omitzero"`
	SenderName         string    `json:"sender_name,omitzero"`
	ReplyToID          string    `json:"reply_to_id,omitzero"`
	Priority           string    `json:"priority"`
	Subtype            string    `json:"subtype,omitzero"`
	Event              string    `json:"event,omitzero"`
	Body               string    `json:"body"`
	Undecryptable      bool      `json:"undecryptable,omitzero"`
	CreatedAt          time.Time `json:"created_at,omitzero"`
	RecipientPubkey    string    `json:"recipient_pubkey"`
	RecipientKind      string    `json:"recipient_kind"`

	EventData jsontext.Value `json:"event_data,omitzero"`
}

// systemEvent is the data of peer_join, peer_leave and system events: mesh, event, and the members of eventData.
type systemEvent struct {
	Mesh  string         `json:"mesh"`
	Event string         `json:"event"`
	Data  jsontext.Value `json:",embed"`
}

func (r *Receiver) publishPush(p *sdk.Push) {
	if r.opts.Events == nil {
		return
	}
	if p.Kind == sdk.PushSystem {
		kind := event.KindSystem
		switch p.Event {
		case "peer_joined":
			kind = event.KindPeerJoin
		case "peer_left":
			kind = event.KindPeerLeave
		}
		data := systemEvent{Mesh: p.Mesh, Event: p.Event}
		if p.EventData.Kind() == '{' {
			data.Data = withoutOwn(p.EventData)
		}
		r.opts.Events.Publish(kind, p.Mesh, data)
		return
	}
	r.opts.Events.Publish(event.KindMessage, p.Mesh, messageEvent{
		ID: p.ID, Mesh: p.Mesh, Kind: string(p.Kind), ClientMessageID: p.ClientMessageID, BrokerMessageID: p.MessageID,
		SenderPubkey: p.Sender, SenderMemberPubkey: p.SenderMember, SenderName: p.SenderName, ReplyToID: p.ReplyToID,
		Priority: p.Priority, Subtype: p.Subtype, Event: p.Event, Body: string(p.Body), Undecryptable: p.Undecryptable,
		CreatedAt: p.CreatedAt, RecipientPubkey: p.Recipient, RecipientKind: p.RecipientKind, EventData: p.EventData,
	})
}

// withoutOwn drops the members of eventData that the event has itself: a peer must not be able to put another mesh's name
// into an event.
func withoutOwn(data jsontext.Value) jsontext.Value {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(data, &members); err != nil {
		return nil
	}
	_, mesh := members["mesh"]
	_, ev := members["event"]
	if !mesh && !ev {
		return data
	}
	delete(members, "mesh")
	delete(members, "event")
	out, err := json.Marshal(members, json.Deterministic(true))
	if err != nil {
		return nil
	}
	return out
}
