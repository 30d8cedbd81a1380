package wire

import "github.com/go-json-experiment/json/jsontext"

// Send hands a message to the broker (PROTOCOL 4.1). ID correlates the ack; Nonce and Ciphertext are padded standard base64.
type Send struct {
	ID                 string   `json:"id"`
	ClientMessageID    string   `json:"client_message_id,omitzero"`
	RequestFingerprint string   `json:"request_fingerprint,omitzero"`
	TargetSpec         string   `json:"targetSpec"`
	Priority           string   `json:"priority,omitzero"`
	Nonce              string   `json:"nonce"`
	Ciphertext         string   `json:"ciphertext"`
	Mentions           []string `json:"mentions,omitempty"`
	ReplyToID          string   `json:"replyToId,omitzero"`
	BodyVersion        int      `json:"bodyVersion,omitzero"`
}

// FrameType returns "send".
func (Send) FrameType() string { return TypeSend }

// AppendSend appends the frame of s to dst. It writes what [Encode] writes, without reflection: sends are the hot path.
// It doesn't check the size; a string with invalid UTF-8 is an error.
func AppendSend(dst []byte, s *Send) ([]byte, error) {
	dst = append(dst, `{"type":"send"`...)
	var err error
	str := func(name, value string, always bool) {
		if err != nil || (value == "" && !always) {
			return
		}
		dst = append(dst, name...)
		dst, err = jsontext.AppendQuote(dst, value)
	}
	str(`,"id":`, s.ID, true)
	str(`,"client_message_id":`, s.ClientMessageID, false)
	str(`,"request_fingerprint":`, s.RequestFingerprint, false)
	str(`,"targetSpec":`, s.TargetSpec, true)
	str(`,"priority":`, s.Priority, false)
	str(`,"nonce":`, s.Nonce, true)
	str(`,"ciphertext":`, s.Ciphertext, true)
	for i, mention := range s.Mentions {
		if i == 0 {
			str(`,"mentions":[`, mention, true)
		} else {
			str(`,`, mention, true)
		}
	}
	if len(s.Mentions) > 0 {
		dst = append(dst, ']')
	}
	str(`,"replyToId":`, s.ReplyToID, false)
	if s.BodyVersion != 0 {
		dst = append(dst, `,"bodyVersion":`...)
		dst = appendInt(dst, s.BodyVersion)
	}
	if err != nil {
		return nil, malformed("send", err)
	}
	return append(dst, '}'), nil
}

// Ack answers a send, and a few requests that have nothing else to say (PROTOCOL 4.2): decide by the correlation id and the
// presence of Error, never by Queued alone.
type Ack struct {
	ID        string `json:"id"`
	MessageID string `json:"messageId"`
	Queued    bool   `json:"queued"`
	Error     string `json:"error,omitzero"`
	ReqID     string `json:"_reqId,omitzero"`
}

// FrameType returns "ack".
func (Ack) FrameType() string { return TypeAck }

// Push is a message or an event for this connection, in any of the shapes of PROTOCOL 5.1; which members are present tells
// the shape. Raw is the frame as it came, set by [DecodePush].
type Push struct {
	Subtype            string         `json:"subtype,omitzero"`
	Event              string         `json:"event,omitzero"`
	EventData          jsontext.Value `json:"eventData,omitzero"`
	MessageID          string         `json:"messageId"`
	MeshID             string         `json:"meshId"`
	SenderPubkey       string         `json:"senderPubkey"`
	SenderMemberPubkey string         `json:"senderMemberPubkey,omitzero"`
	SenderMemberID     string         `json:"senderMemberId,omitzero"`
	SenderName         string         `json:"senderName,omitzero"`
	Topic              string         `json:"topic,omitzero"`
	ReplyToID          string         `json:"replyToId,omitzero"`
	Priority           string         `json:"priority"`
	Nonce              string         `json:"nonce"`
	Ciphertext         string         `json:"ciphertext"`
	CreatedAt          string         `json:"createdAt"` // ISO
	ClientMessageID    string         `json:"client_message_id,omitzero"`
	RequestFingerprint string         `json:"request_fingerprint,omitzero"`

	Raw jsontext.Value `json:"-"`
}

// FrameType returns "push".
func (Push) FrameType() string { return TypePush }

// DecodePush reads a push, or its alias "inbound"; Raw aliases raw.
func DecodePush(raw []byte) (*Push, error) {
	p := new(Push)
	if err := unmarshal(raw, p, TypePush); err != nil {
		return nil, err
	}
	p.Raw = raw
	return p, nil
}

// ClientAck tells the broker that a push is stored (PROTOCOL 5.3): at least one id, both when known.
type ClientAck struct {
	ClientMessageID string `json:"clientMessageId,omitzero"`
	BrokerMessageID string `json:"brokerMessageId,omitzero"`
}

// FrameType returns "client_ack".
func (ClientAck) FrameType() string { return TypeClientAck }

// MessageStatus asks what became of a message (PROTOCOL 7.6): 8 to 32 base62 characters, fewer than 32 are a prefix.
type MessageStatus struct {
	MessageID string `json:"messageId"`
	ReqID     string `json:"_reqId,omitzero"`
}

// FrameType returns "message_status".
func (MessageStatus) FrameType() string { return TypeMessageStatus }

// Recipient is one line of a [MessageStatusResult]; Status is delivered, held or disconnected.
type Recipient struct {
	Name   string `json:"name"`
	Pubkey string `json:"pubkey"`
	Status string `json:"status"`
}

// MessageStatusResult answers message_status (PROTOCOL 7.6). Delivered means that a client_ack came (direct) or the fan-out ran.
type MessageStatusResult struct {
	MessageID   string      `json:"messageId"`
	TargetSpec  string      `json:"targetSpec"`
	Delivered   bool        `json:"delivered"`
	DeliveredAt *string     `json:"deliveredAt"` // ISO or null
	Recipients  []Recipient `json:"recipients"`
	ReqID       string      `json:"_reqId,omitzero"`
}

// FrameType returns "message_status_result".
func (MessageStatusResult) FrameType() string { return TypeMessageStatusResult }
