package control

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
)

// The routes of PROTOCOL 10.3 for shared state are those of the feature "state".
const stateFeature = "state"

// stateEntry is what the feature answers, and stateWire the wire's names of it.
type stateEntry struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updated_by"`
	UpdatedAt string         `json:"updated_at"`
	Mesh      string         `json:"mesh"`
}

type stateWire struct {
	Key       string         `json:"key"`
	Value     jsontext.Value `json:"value"`
	UpdatedBy string         `json:"updatedBy"`
	UpdatedAt string         `json:"updatedAt"`
	Mesh      string         `json:"mesh,omitempty"`
}

// stateGet is GET /v1/state?key=&mesh=; without a key it lists.
func (s *Server) stateGet(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !q.Has("key") {
		s.stateList(w, r)
		return
	}
	var e stateEntry
	err := s.callJSON(r, stateFeature, "get", q.Get("mesh"), struct {
		Key string `json:"key"`
	}{q.Get("key")}, &e)
	if err != nil {
		writeProblem(w, err)
		return
	}
	if e.Mesh == "" {
		e.Mesh = q.Get("mesh")
	}
	reply(w, struct {
		State stateWire `json:"state"`
	}{stateWire(e)})
}

func (s *Server) stateList(w http.ResponseWriter, r *http.Request) {
	mesh := r.URL.Query().Get("mesh")
	var list struct {
		Entries []stateEntry `json:"entries"`
	}
	if err := s.callJSON(r, stateFeature, "list", mesh, struct{}{}, &list); err != nil {
		writeProblem(w, err)
		return
	}
	out := struct {
		Entries []stateWire `json:"entries"`
	}{make([]stateWire, 0, len(list.Entries))}
	for _, e := range list.Entries {
		out.Entries = append(out.Entries, stateWire(e))
	}
	reply(w, out)
}

// stateSet is POST /v1/state {key, value, mesh?}.
func (s *Server) stateSet(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Key   string         `json:"key"`
		Value jsontext.Value `json:"value"`
		Mesh  string         `json:"mesh"`
	}
	err := decode(r, bodyState, &body)
	switch {
	case err != nil:
	case body.Key == "":
		err = missingField("key")
	case len(body.Value) == 0:
		err = missingField("value")
	}
	var e stateEntry
	if err == nil {
		err = s.callJSON(r, stateFeature, "set", body.Mesh, struct {
			Key   string         `json:"key"`
			Value jsontext.Value `json:"value"`
		}{body.Key, body.Value}, &e)
	}
	if err != nil {
		writeProblem(w, err)
		return
	}
	if e.Mesh == "" {
		e.Mesh = body.Mesh
	}
	reply(w, struct {
		OK   bool   `json:"ok"`
		Key  string `json:"key"`
		Mesh string `json:"mesh"`
	}{true, body.Key, e.Mesh})
}
