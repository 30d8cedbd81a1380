package control

import (
	"context"
	"net/http"
)

// Reloader puts a changed configuration in force.
type Reloader interface {
	// Reload returns when all of the configuration is in force; after an error
	// the old one is, as before. Errors: *Problem. It goes on when ctx ends, which
	// only ends the wait for an earlier reload.
	Reload(ctx context.Context) (ReloadReply, error)
}

// ReloadReply says what a reload did.
type ReloadReply struct {
	// Changes are in the order in which they were made; empty: nothing differs.
	Changes []ReloadChange `json:"changes"`
	// Warnings are sentences about what the configuration says, or about what is
	// still not as it should be.
	Warnings []string `json:"warnings"`
}

// ReloadChange is one thing that is different now.
type ReloadChange struct {
	// Block names it as it stands in mesh.hcl: outbox "sqlite".
	Block string `json:"block"`
	// Change says what happened to it.
	Change string `json:"change"`
}

// String is the change as people read it.
func (c ReloadChange) String() string { return c.Block + ": " + c.Change }

// reload is POST /v1/reload. It answers when it is done.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	rep, err := s.opts.Reloader.Reload(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, rep)
}
