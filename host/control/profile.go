package control

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

// The route of PROTOCOL 10.3 for one's own presence is the feature "peers".
const peersFeature = "peers"

type profileBody struct {
	Mesh         string   `json:"mesh"`
	Summary      *string  `json:"summary"`
	Status       *string  `json:"status"`
	Visible      *bool    `json:"visible"`
	Avatar       *string  `json:"avatar"`
	Title        *string  `json:"title"`
	Bio          *string  `json:"bio"`
	Capabilities []string `json:"capabilities"`
}

// profileCall is one call of the feature and the fields that it applies.
type profileCall struct {
	method string
	keys   []string
	params map[string]any
}

// calls are what the body asks of the feature: summary, status and visible have
// a method each, the rest is the profile's.
func (b *profileBody) calls() []profileCall {
	var calls []profileCall
	one := func(name string, v any) {
		calls = append(calls, profileCall{name, []string{name}, map[string]any{name: v}})
	}
	if b.Summary != nil {
		one("summary", *b.Summary)
	}
	if b.Status != nil {
		one("status", *b.Status)
	}
	if b.Visible != nil {
		one("visible", *b.Visible)
	}
	rest := profileCall{method: "profile", params: map[string]any{}}
	add := func(name string, v any) {
		rest.keys = append(rest.keys, name)
		rest.params[name] = v
	}
	if b.Avatar != nil {
		add("avatar", *b.Avatar)
	}
	if b.Title != nil {
		add("title", *b.Title)
	}
	if b.Bio != nil {
		add("bio", *b.Bio)
	}
	if b.Capabilities != nil {
		add("capabilities", b.Capabilities)
	}
	if len(rest.keys) > 0 {
		calls = append(calls, rest)
	}
	return calls
}

// profile is POST /v1/profile; without a mesh it applies to all of them. When a
// call fails, the error says which fields were applied before it.
func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	var body profileBody
	if err := decode(r, bodyProfile, &body); err != nil {
		writeProblem(w, err)
		return
	}
	calls := body.calls()
	if len(calls) == 0 {
		writeProblem(w, &Problem{
			Status: http.StatusBadRequest, Code: "missing_field", Message: "there is nothing to apply",
			Next: "name one of summary, status, visible, avatar, title, bio, capabilities",
		})
		return
	}
	meshes, err := s.meshesOf(r, body.Mesh)
	if err != nil {
		writeProblem(w, err)
		return
	}
	applied := []string{}
	for _, c := range calls {
		if err := s.apply(r, c, meshes); err != nil {
			p := *problemOf(err)
			p.Fields = append(p.Fields, Field{"applied", applied}, Field{"failed", c.keys})
			writeProblem(w, &p)
			return
		}
		applied = append(applied, c.keys...)
	}
	reply(w, struct {
		OK      bool     `json:"ok"`
		Applied []string `json:"applied"`
		Meshes  []string `json:"meshes"`
	}{true, applied, meshes})
}

func (s *Server) apply(r *http.Request, c profileCall, meshes []string) error {
	params, err := json.Marshal(c.params)
	if err != nil {
		return err
	}
	for _, mesh := range meshes {
		call := sdk.Call{Method: c.method, Params: jsontext.Value(params), Mesh: mesh}
		if _, err := s.call(r.Context(), peersFeature, call); err != nil {
			return err
		}
	}
	return nil
}

// meshesOf is the mesh that was named, or all of them.
func (s *Server) meshesOf(r *http.Request, named string) ([]string, error) {
	if named != "" {
		return []string{named}, nil
	}
	return s.meshNames(r.Context())
}

// meshNames are all meshes.
func (s *Server) meshNames(ctx context.Context) ([]string, error) {
	st, err := s.opts.Overview.Status(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(st.Meshes))
	for _, m := range st.Meshes {
		names = append(names, m.Name)
	}
	return names, nil
}
