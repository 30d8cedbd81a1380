package control

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// PeersReply is the answer of GET /v1/peers. A row is the wire's (PROTOCOL 7.1,
// camelCase) with mesh, the normalised role (PROTOCOL 8) and what filters
// annotated.
type PeersReply struct {
	Peers    []jsontext.Value  `json:"peers"`
	Hidden   []sdk.HiddenCount `json:"hidden"`
	Warnings []string          `json:"warnings"`
}

// peers is GET /v1/peers?mesh=&all=.
func (s *Server) peers(w http.ResponseWriter, r *http.Request) {
	all, err := boolOf(r, "all")
	if err != nil {
		writeProblem(w, err)
		return
	}
	view, err := s.opts.Peers.Peers(r.Context(), r.URL.Query().Get("mesh"), all)
	if err != nil {
		writeProblem(w, err)
		return
	}
	out := PeersReply{
		Peers:  make([]jsontext.Value, 0, len(view.Peers)),
		Hidden: slices.Concat([]sdk.HiddenCount{}, view.Hidden), Warnings: slices.Concat([]string{}, view.Warnings),
	}
	for i := range view.Peers {
		out.Peers = append(out.Peers, peerRow(&view.Peers[i]))
	}
	reply(w, out)
}

// peerRow keeps the wire's fields, also those that we don't know, and adds ours.
func peerRow(p *sdk.Peer) jsontext.Value {
	row, ok := copyMembers([]byte{'{'}, p.Wire)
	if !ok {
		row = bareRow(p)
	}
	if len(row) > 1 {
		row = append(row, ',')
	}
	row = append(row, `"mesh":`...)
	row = appendString(row, p.Mesh)
	row = append(row, `,"role":`...)
	row = appendString(row, p.Role)
	if len(p.Annotations) > 0 {
		// A map of strings always encodes; invalid UTF-8 is replaced.
		notes, _ := json.Marshal(p.Annotations, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
		row = append(append(row, `,"annotations":`...), notes...)
	}
	return append(row, '}')
}

// ours are the members that this API adds; the wire's of the same name go.
var ours = []string{"mesh", "role", "annotations"}

// copyMembers appends the members of a JSON object but for ours. It reports
// false when wire is no object.
func copyMembers(row []byte, wire jsontext.Value) ([]byte, bool) {
	if len(wire) == 0 {
		return row, false
	}
	d := jsontext.NewDecoder(bytes.NewReader(wire))
	if tok, err := d.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return row, false
	}
	for d.PeekKind() == jsontext.KindString {
		tok, err := d.ReadToken()
		if err != nil {
			return row, false
		}
		name := tok.String()
		v, err := d.ReadValue()
		if err != nil {
			return row, false
		}
		if slices.Contains(ours, name) {
			continue
		}
		if len(row) > 1 {
			row = append(row, ',')
		}
		row = append(appendString(row, name), ':')
		row = append(row, v...)
	}
	return row, d.PeekKind() == jsontext.KindEndObject
}

// bareRow is for a peer of which the host has no row of the wire. It has the
// wire's names and stays open at its end.
func bareRow(p *sdk.Peer) []byte {
	row, err := json.Marshal(struct {
		PubKey       string      `json:"pubkey"`
		MemberPubKey string      `json:"memberPubkey"`
		DisplayName  string      `json:"displayName"`
		Status       string      `json:"status"`
		Summary      *string     `json:"summary"`
		Groups       []sdk.Group `json:"groups"`
		SessionID    string      `json:"sessionId"`
		ConnectedAt  time.Time   `json:"connectedAt,omitzero"`
		Cwd          string      `json:"cwd"`
		PeerRole     string      `json:"peerRole"`
		Hostname     string      `json:"hostname,omitempty"`
		PeerType     string      `json:"peerType,omitempty"`
		Channel      string      `json:"channel,omitempty"`
		Model        string      `json:"model,omitempty"`
		Visible      *bool       `json:"visible,omitempty"`
	}{
		p.PubKey, p.MemberPubKey, p.DisplayName, p.Status, text(p.Summary), p.Groups, p.SessionID, p.ConnectedAt.UTC(),
		p.Cwd, p.Role, p.Hostname, p.PeerType, p.Channel, p.Model, p.Visible,
	}, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return []byte{'{'}
	}
	return row[:len(row)-1]
}
