package store

import (
	"context"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// Peer is one row of the directory: a key that was once listed or announced in a mesh.
type Peer struct {
	Mesh      string
	Key       string // routing key, 64 hex digits
	MemberKey string // empty when only an announcement named the key
	Name      string
	Role      string // empty when only an announcement named the key
	LastSeen  time.Time
}

// PutPeers inserts or replaces rows of the directory and lets go of the least recently seen beyond its bound.
func (s *Store) PutPeers(ctx context.Context, peers []Peer) error {
	if len(peers) == 0 {
		return nil
	}
	err := s.write(ctx, func(conn *sqlite.Conn) error {
		for i := range peers {
			p := &peers[i]
			_, err := execN(conn, `INSERT INTO peer (mesh, key, member_key, name, role, last_seen) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (mesh, key) DO UPDATE SET member_key = excluded.member_key, name = excluded.name, role = excluded.role, last_seen = excluded.last_seen`,
				p.Mesh, p.Key, p.MemberKey, p.Name, p.Role, p.LastSeen.UnixMilli())
			if err != nil {
				return err
			}
		}
		count, err := number(conn, "SELECT count(*) FROM peer")
		if err != nil || count <= s.opts.Peers {
			return err
		}
		_, err = execN(conn, "DELETE FROM peer WHERE (mesh, key) IN (SELECT mesh, key FROM peer ORDER BY last_seen LIMIT ?)", count-s.opts.Peers)
		return err
	})
	if err != nil {
		return fmt.Errorf("store peers: %w", err)
	}
	return nil
}

// Peers returns the whole directory, the most recently seen first.
func (s *Store) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	err := s.view(ctx, func(conn *sqlite.Conn) error {
		return sqlitex.Execute(conn, "SELECT mesh, key, member_key, name, role, last_seen FROM peer ORDER BY last_seen DESC", &sqlitex.ExecOptions{
			ResultFunc: func(stmt *sqlite.Stmt) error {
				peers = append(peers, Peer{
					Mesh: stmt.ColumnText(0), Key: stmt.ColumnText(1), MemberKey: stmt.ColumnText(2), Name: stmt.ColumnText(3),
					Role: stmt.ColumnText(4), LastSeen: time.UnixMilli(stmt.ColumnInt64(5)),
				})
				return nil
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load peers: %w", err)
	}
	return peers, nil
}
