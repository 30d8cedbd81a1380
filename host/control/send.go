package control

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
)

// sendBody is what POST /v1/send takes. Message is a pointer because an empty
// text and none are two things.
type sendBody struct {
	To              string         `json:"to"`
	Message         *string        `json:"message"`
	Priority        string         `json:"priority"`
	Meta            jsontext.Value `json:"meta"`
	ReplyToID       string         `json:"reply_to_id"`
	ClientMessageID string         `json:"client_message_id"`
	Mesh            string         `json:"mesh"`
}

// send is POST /v1/send (PROTOCOL 10.4). It is the API's one hot path: the
// answer is put together by hand.
func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	var body sendBody
	if err := decode(r, bodySend, &body); err != nil {
		writeProblem(w, err)
		return
	}
	if body.ClientMessageID == "" {
		body.ClientMessageID = r.Header.Get("Idempotency-Key")
	}
	if err := body.check(); err != nil {
		writeProblem(w, err)
		return
	}
	rep, err := s.opts.Outbound.Send(r.Context(), body.request())
	if err != nil {
		writeProblem(w, err)
		return
	}
	status := http.StatusAccepted
	if rep.Status == StatusDone {
		status = http.StatusOK
	}
	buf := getBuffer()
	buf.b = appendSendReply(buf.b, &rep)
	writeBytes(w, status, buf.b)
	putBuffer(buf)
}

func (b *sendBody) check() error {
	if b.To == "" {
		return missingField("to")
	}
	if b.Message == nil {
		return missingField("message")
	}
	if err := checkPriority(b.Priority); err != nil {
		return err
	}
	switch b.Meta.Kind() {
	case 0, jsontext.KindBeginObject:
	case jsontext.KindNull:
		b.Meta = nil
	default:
		return badParameter("meta", string(b.Meta), "use a JSON object")
	}
	return nil
}

func checkPriority(p string) error {
	switch p {
	case "", "now", "next", "low":
		return nil
	default:
		return badParameter("priority", p, "use now, next or low")
	}
}

// request is what the rooms are asked; check comes before.
func (b *sendBody) request() SendRequest {
	return SendRequest{
		To: b.To, Message: *b.Message, Priority: b.Priority, Meta: b.Meta,
		ReplyToID: b.ReplyToID, ClientMessageID: b.ClientMessageID, Mesh: b.Mesh,
	}
}

func appendSendReply(b []byte, rep *SendReply) []byte {
	b = append(b, `{"client_message_id":`...)
	b = appendString(b, rep.ClientMessageID)
	b = append(b, `,"id":`...)
	b = appendString(b, rep.ID)
	b = append(b, `,"status":`...)
	b = appendString(b, rep.Status)
	if rep.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	if rep.BrokerMessageID != "" {
		b = append(b, `,"broker_message_id":`...)
		b = appendString(b, rep.BrokerMessageID)
	}
	b = append(b, `,"durable":`...)
	if rep.Durable {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	if rep.Resolved.Target != "" {
		b = append(b, `,"resolved":{"target":`...)
		b = appendString(b, rep.Resolved.Target)
		if rep.Resolved.Name != "" {
			b = append(b, `,"name":`...)
			b = appendString(b, rep.Resolved.Name)
		}
		b = append(b, `,"from":`...)
		b = appendString(b, rep.Resolved.From)
		b = append(b, '}')
	}
	return append(b, '}')
}
