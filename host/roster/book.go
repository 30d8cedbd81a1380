package roster

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/host/store"
	"github.com/meshhost/meshhost/sdk"
)

// seenStep is how much newer a time must be to be written: being seen again is no news for the disk.
const seenStep = 10 * time.Minute

// maxNoted bounds a name or member key in the directory, in bytes: a peer chooses its name, and nobody can type a longer one.
const maxNoted = 256

type peerKey struct{ mesh, key string }

// book is the directory in memory: every key that was ever listed or announced, the least recently seen going first.
type book struct {
	limit   int
	changed chan struct{} // capacity 1: there is something to write

	mu    sync.Mutex
	rows  map[peerKey]store.Peer // guarded by mu; at most limit and a tenth
	dirty map[peerKey]struct{}   // guarded by mu; what the disk doesn't know
}

func newBook(peers []store.Peer, limit int) *book {
	b := &book{limit: limit, changed: make(chan struct{}, 1), rows: make(map[peerKey]store.Peer, len(peers)), dirty: make(map[peerKey]struct{})}
	for _, p := range peers {
		b.rows[peerKey{p.Mesh, p.Key}] = p
	}
	return b
}

// listed takes in a broker's list.
func (b *book) listed(mesh string, rows []sdk.Peer, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range rows {
		p := &rows[i]
		if _, err := identity.ParsePublicKey(p.PubKey); err != nil {
			continue
		}
		b.put(store.Peer{Mesh: mesh, Key: p.PubKey, MemberKey: p.MemberPubKey, Name: p.DisplayName, Role: p.Role, LastSeen: at})
	}
	b.settle()
}

// announced takes in a peer_joined or peer_returned: it names a key, not whose member's.
func (b *book) announced(mesh, name, key string, at time.Time) {
	if _, err := identity.ParsePublicKey(key); err != nil || name == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	row := store.Peer{Mesh: mesh, Key: key, Name: name, LastSeen: at}
	if known, ok := b.rows[peerKey{mesh, key}]; ok {
		row.MemberKey, row.Role = known.MemberKey, known.Role
	}
	b.put(row)
	b.settle()
}

// put stores a row and notes whether the disk must know. Called with mu held.
func (b *book) put(row store.Peer) {
	row.Name, row.MemberKey = noted(row.Name), noted(row.MemberKey)
	k := peerKey{row.Mesh, row.Key}
	old, ok := b.rows[k]
	b.rows[k] = row
	if ok && old.MemberKey == row.MemberKey && old.Name == row.Name && old.Role == row.Role && row.LastSeen.Sub(old.LastSeen) < seenStep {
		if _, dirty := b.dirty[k]; !dirty {
			row.LastSeen = old.LastSeen // as on disk, so that small steps add up
			b.rows[k] = row
			return
		}
	}
	b.dirty[k] = struct{}{}
}

func noted(s string) string {
	if len(s) > maxNoted {
		s = strings.ToValidUTF8(s[:maxNoted], "")
	}
	return s
}

// settle keeps the bound and wakes the writer. Called with mu held.
func (b *book) settle() {
	if len(b.rows) > b.limit+b.limit/10 { // a tenth of slack: finding the oldest reads all
		b.forget(len(b.rows) - b.limit)
	}
	if len(b.dirty) > 0 {
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}
}

// forget lets go of the n rows seen least recently.
func (b *book) forget(n int) {
	all := make([]store.Peer, 0, len(b.rows))
	for _, p := range b.rows {
		all = append(all, p)
	}
	sortBySeen(all)
	for _, p := range all[len(all)-n:] {
		delete(b.rows, peerKey{p.Mesh, p.Key})
		delete(b.dirty, peerKey{p.Mesh, p.Key})
	}
}

func (b *book) takeDirty() []store.Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make([]store.Peer, 0, len(b.dirty))
	for k := range b.dirty {
		rows = append(rows, b.rows[k])
	}
	clear(b.dirty)
	return rows
}

func (b *book) putBack(rows []store.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range rows {
		if k := (peerKey{p.Mesh, p.Key}); b.rows[k].Key != "" {
			b.dirty[k] = struct{}{}
		}
	}
}

func sortBySeen(rows []store.Peer) {
	slices.SortFunc(rows, func(a, b store.Peer) int {
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), strings.Compare(a.Key, b.Key))
	})
}

// find returns the rows of a mesh that match, the most recently seen first.
func (b *book) find(mesh string, match func(*row) bool) []store.Peer {
	b.mu.Lock()
	var found []store.Peer
	for k, p := range b.rows {
		if k.mesh == mesh && match(&row{key: p.Key, member: p.MemberKey, name: p.Name, role: p.Role}) {
			found = append(found, p)
		}
	}
	b.mu.Unlock()
	sortBySeen(found)
	return found
}

func (b *book) get(mesh, key string) (store.Peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.rows[peerKey{mesh, key}]
	return p, ok
}

// NameOf returns the member key and the display name that a key of a mesh was last seen with; empty if unknown.
func (r *Roster) NameOf(mesh, key string) (memberKey, name string) {
	p, _ := r.book.get(mesh, key)
	return p.MemberKey, p.Name
}

// Announced feeds the directory from a system event of a mesh (PROTOCOL 5.2). Events that name nobody are ignored.
func (r *Roster) Announced(mesh, event string, data jsontext.Value) {
	if event != "peer_joined" && event != "peer_returned" {
		return
	}
	var peer struct {
		Name   string `json:"name"`
		Pubkey string `json:"pubkey"`
	}
	if json.Unmarshal(data, &peer) != nil {
		return // of an odd shape: nobody is named
	}
	r.book.announced(mesh, strings.TrimSpace(peer.Name), peer.Pubkey, time.Now())
	r.stale(mesh)
}
