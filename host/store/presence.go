package store

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/meshhost/meshhost/sdk"
)

const (
	maxPresence  = 64 << 10 // bytes of one document; the frames that it becomes are bounded the same
	maxPresences = 10_000   // identities
)

// Presence is what an identity wants to be seen as; what Doc holds is the host's.
type Presence struct {
	Mesh     string
	Identity string // public key, 64 hex digits
	Doc      jsontext.Value
}

// PutPresence stores the document of one identity; an empty one removes it. [sdk.ErrInvalid] over 64 KiB, [sdk.ErrFull] at
// 10,000 identities.
func (s *Store) PutPresence(ctx context.Context, p Presence) error {
	if len(p.Doc) > maxPresence {
		return sdk.Errorf(sdk.CodeInvalid, "too_large", "presence of %d bytes, at most %d", len(p.Doc), maxPresence)
	}
	full := false
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		full = false // the transaction may run twice
		if len(p.Doc) == 0 {
			_, err := execN(conn, "DELETE FROM presence WHERE mesh = ? AND identity = ?", p.Mesh, p.Identity)
			return err
		}
		n, err := execN(conn, "UPDATE presence SET doc = ? WHERE mesh = ? AND identity = ?", []byte(p.Doc), p.Mesh, p.Identity)
		if err != nil || n > 0 {
			return err
		}
		count, err := number(conn, "SELECT count(*) FROM presence")
		if full = count >= maxPresences; err != nil || full {
			return err
		}
		_, err = execN(conn, "INSERT INTO presence (mesh, identity, doc) VALUES (?, ?, ?)", p.Mesh, p.Identity, []byte(p.Doc))
		return err
	})
	if err != nil {
		return fmt.Errorf("store presence: %w", err)
	}
	if full {
		return sdk.Errorf(sdk.CodeFull, "too_many", "presences of %d identities are stored already", maxPresences)
	}
	return nil
}

// Presences returns every document, by mesh and identity.
func (s *Store) Presences(ctx context.Context) ([]Presence, error) {
	var all []Presence
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT mesh, identity, doc FROM presence ORDER BY mesh, identity", &sqlitex.ExecOptions{
			ResultFunc: func(stmt *sqlite.Stmt) error {
				doc := make([]byte, stmt.ColumnLen(2))
				stmt.ColumnBytes(2, doc)
				all = append(all, Presence{Mesh: stmt.ColumnText(0), Identity: stmt.ColumnText(1), Doc: doc})
				return nil
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load presences: %w", err)
	}
	return all, nil
}
