package control

import (
	"bytes"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// The routes of PROTOCOL 10.3 for the inbox are those of the feature "inbox",
// whichever push handler brings it.
const inboxFeature = "inbox"

// callJSON runs a method with v as its parameters and decodes the result.
func (s *Server) callJSON(r *http.Request, feature, method, mesh string, v any, result any) error {
	params, err := json.Marshal(v)
	if err != nil {
		return err
	}
	res, err := s.call(r.Context(), feature, sdk.Call{Method: method, Params: params, Mesh: mesh})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(res, result); err != nil {
		return &Problem{
			Status: http.StatusBadGateway, Code: "bad_plugin_reply", Message: feature + " " + method + ": " + err.Error(),
			Next: "use a plugin whose feature " + feature + " fits this route, or POST /v1/features/" + feature + "/" + method,
		}
	}
	return nil
}

// inboxQuery are the parameters of inbox list.
type inboxQuery struct {
	Since  string `json:"since,omitempty"`
	Topic  string `json:"topic,omitempty"`
	From   string `json:"from,omitempty"`
	Limit  int    `json:"limit,omitzero"`
	Unread bool   `json:"unread,omitzero"`
}

// inboxList is GET /v1/inbox?since=&topic=&from=&limit=&mesh=&unread_only=&mark_seen=.
// Other than the reference it marks rows seen only if mark_seen=true asks for it.
func (s *Server) inboxList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := limitOf(r, 100, 1000)
	var unread, mark bool
	if err == nil {
		unread, err = boolOf(r, "unread_only")
	}
	if err == nil {
		mark, err = boolOf(r, "mark_seen")
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	var list struct {
		Messages []jsontext.Value `json:"messages"`
	}
	err = s.callJSON(r, inboxFeature, "list", q.Get("mesh"), inboxQuery{
		Since: q.Get("since"), Topic: q.Get("topic"), From: q.Get("from"), Limit: limit, Unread: unread,
	}, &list)
	if err != nil {
		writeProblem(w, err)
		return
	}
	out := struct {
		Items      []jsontext.Value `json:"items"`
		MarkedSeen int              `json:"marked_seen"`
	}{Items: list.Messages}
	if out.Items == nil {
		out.Items = []jsontext.Value{}
	}
	for i, row := range out.Items {
		out.Items[i] = withNulls(row, inboxFields)
	}
	if mark && len(out.Items) > 0 {
		if out.MarkedSeen, err = s.markSeen(r, rowIDs(out.Items)); err != nil {
			writeProblem(w, err)
			return
		}
	}
	reply(w, out)
}

// inboxFields are the members of a row by PROTOCOL 10.3. A plugin may leave out
// those without a value; a reader of the reference finds null there.
var inboxFields = []string{
	"id", "client_message_id", "broker_message_id", "mesh", "topic", "sender_pubkey", "sender_name", "body",
	"received_at", "reply_to_id", "seen_at", "recipient_pubkey", "recipient_kind",
}

// withNulls adds the members that an object lacks; anything else stays as it is.
func withNulls(row jsontext.Value, names []string) jsontext.Value {
	var have map[string]jsontext.Value
	if json.Unmarshal(row, &have) != nil || len(have) == 0 {
		return row
	}
	out := bytes.TrimSuffix(bytes.TrimSpace(row.Clone()), []byte("}"))
	for _, name := range names {
		if _, ok := have[name]; !ok {
			out = append(appendString(append(out, ','), name), ":null"...)
		}
	}
	return append(out, '}')
}

// rowIDs are the members "id" of rows.
func rowIDs(rows []jsontext.Value) []string {
	var ids []string
	for _, row := range rows {
		var id struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(row, &id) == nil && id.ID != "" {
			ids = append(ids, id.ID)
		}
	}
	return ids
}

func (s *Server) markSeen(r *http.Request, ids []string) (int, error) {
	var res struct {
		MarkedSeen int `json:"marked_seen"`
	}
	err := s.callJSON(r, inboxFeature, "seen", "", struct {
		IDs []string `json:"ids"`
	}{ids}, &res)
	return res.MarkedSeen, err
}

// inboxSeen is POST /v1/inbox/seen {ids}.
func (s *Server) inboxSeen(w http.ResponseWriter, r *http.Request) {
	var body struct {
		IDs []string `json:"ids"`
	}
	err := decode(r, bodySeen, &body)
	if err == nil && len(body.IDs) == 0 {
		err = missingField("ids")
	}
	var n int
	if err == nil {
		n, err = s.markSeen(r, body.IDs)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, struct {
		MarkedSeen int `json:"marked_seen"`
	}{n})
}

// inboxPrune is DELETE /v1/inbox?mesh=&before=ISO. Without before everything
// would go, which one missing word should not do: it is required here.
func (s *Server) inboxPrune(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	before := q.Get("before")
	if _, err := time.Parse(time.RFC3339, before); err != nil {
		writeProblem(w, badParameter("before", before, "use a time such as 2026-01-31T12:00:00Z"))
		return
	}
	var res struct {
		Removed int `json:"removed"`
	}
	err := s.callJSON(r, inboxFeature, "prune", q.Get("mesh"), struct {
		Before string `json:"before"`
	}{before}, &res)
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, res)
}

// inboxDelete is DELETE /v1/inbox/ID.
func (s *Server) inboxDelete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var res struct {
		Removed int `json:"removed"`
	}
	err := s.callJSON(r, inboxFeature, "delete", "", struct {
		ID string `json:"id"`
	}{id}, &res)
	if err == nil && res.Removed == 0 {
		err = sdk.Errorf(sdk.CodeNotFound, "message_not_found", "no message %s", id)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, struct {
		Removed int    `json:"removed"`
		ID      string `json:"id"`
	}{res.Removed, id})
}
