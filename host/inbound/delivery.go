package inbound

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
)

// Delivery is one push as a broker sent it (PROTOCOL 5.1). Fields that the frame didn't have are empty.
type Delivery struct {
	// Mesh is the mesh's name in mesh.hcl.
	Mesh string
	// Identity is the public key of the connection that it came on.
	Identity        identity.PublicKey
	MessageID       string
	ClientMessageID string
	Sender          string // public key in hex, "system" or "webhook:NAME"
	SenderMember    string // comes with live multicast only
	SenderName      string
	Priority        string
	Nonce           string
	Ciphertext      string
	ReplyToID       string
	CreatedAt       time.Time
	Subtype         string
	Event           string
	EventData       jsontext.Value
}

// Subtypes of a push (PROTOCOL 5.1).
const (
	subtypeSystem  = "system"
	subtypeWebhook = "webhook"
)

// ackable reports whether the broker keeps a row of d until it is acked: live multicast, which alone names the sender's
// member, and what the broker makes itself have none (PROTOCOL 5.1, 5.3).
func (d *Delivery) ackable() bool {
	return d.Subtype != subtypeSystem && d.Subtype != subtypeWebhook && d.SenderMember == ""
}

// size is what d holds in memory, in bytes, within a few hundred.
func (d *Delivery) size() int {
	return len(d.Ciphertext) + len(d.EventData) + len(d.Nonce) + len(d.MessageID) + len(d.ClientMessageID) + 512
}

// dedupKeys are the texts of ARCHITECTURE 6, promise 3: equal messages share at least one.
func dedupKeys(d *Delivery, recipient string) []string {
	var keys []string
	if d.ClientMessageID != "" {
		keys = append(keys, "c|"+d.Mesh+"|"+recipient+"|"+d.Sender+"|"+d.ClientMessageID)
	}
	if d.MessageID != "" {
		if d.Subtype == subtypeSystem {
			// Each of our connections to the mesh gets a copy (PROTOCOL 5.2).
			keys = append(keys, "b|"+d.Mesh+"|"+d.MessageID)
		} else {
			keys = append(keys, "b|"+d.Mesh+"|"+recipient+"|"+d.MessageID)
		}
	}
	return keys
}

func hashKeys(keys []string) []store.DedupKey {
	out := make([]store.DedupKey, len(keys))
	for i, key := range keys {
		sum := sha256.Sum256([]byte(key))
		copy(out[i][:], sum[:])
	}
	return out
}

// orderKey is equal for pushes of one sender to one recipient in a mesh. Two that collide only wait for each other.
func orderKey(mesh, recipient, sender string) int64 {
	sum := sha256.Sum256([]byte(mesh + "|" + recipient + "|" + sender))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}
