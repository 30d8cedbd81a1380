package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// MeshIdentity is what a member's hello repeats at every connection, so that the broker knows it again after a restart and
// its status hook finds this connection alone (PROTOCOL 2.7, 4.6).
type MeshIdentity struct {
	SessionID string
	PID       int32 // random and positive, not a process id
}

// MeshIdentity returns the identity of this install in a mesh, made and stored at the first call for it.
func (s *Store) MeshIdentity(ctx context.Context, mesh string) (MeshIdentity, error) {
	var id MeshIdentity
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		fresh := MeshIdentity{SessionID: "meshhost-" + randomHex(16), PID: randomPID()}
		_, err := execN(conn, "INSERT OR IGNORE INTO mesh_identity (mesh, session_id, pid) VALUES (?, ?, ?)", mesh, fresh.SessionID, int64(fresh.PID))
		if err != nil {
			return err
		}
		return sqlitex.Execute(conn, "SELECT session_id, pid FROM mesh_identity WHERE mesh = ?", &sqlitex.ExecOptions{
			Args: []any{mesh},
			ResultFunc: func(stmt *sqlite.Stmt) error {
				id = MeshIdentity{SessionID: stmt.ColumnText(0), PID: stmt.ColumnInt32(1)}
				return nil
			},
		})
	})
	if err != nil {
		return MeshIdentity{}, fmt.Errorf("identity in mesh %q: %w", mesh, err)
	}
	return id, nil
}

func randomPID() int32 {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails since Go 1.24: the process dies instead
	return int32(binary.BigEndian.Uint32(raw[:])&0x7fffffff) | 1
}
