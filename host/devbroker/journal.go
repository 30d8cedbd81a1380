package devbroker

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// Operations of the data file: one JSON record a line.
const (
	opQueued  = "queued"  // row
	opClaimed = "claimed" // ids, at = end of the claim
	opAcked   = "acked"   // ids, at
	opDone    = "done"    // ids, target, at: delivered without having waited, or what is left after a compaction
	opExpired = "expired" // ids
	opState   = "state"   // key, state
	opMember  = "member"  // member, saved
	opRevoked = "revoked" // member, revoked, at
)

type record struct {
	Op      string      `json:"op"`
	Mesh    string      `json:"mesh"`
	Row     *storedRow  `json:"row,omitzero"`
	IDs     []string    `json:"ids,omitempty"`
	Target  string      `json:"target,omitzero"`
	At      time.Time   `json:"at,omitzero"`
	Key     string      `json:"key,omitzero"`
	State   *stateEntry `json:"state,omitzero"`
	Member  string      `json:"member,omitzero"`
	Saved   *savedState `json:"saved,omitzero"`
	Revoked bool        `json:"revoked,omitzero"`
}

type storedRow struct {
	ID          string    `json:"id"`
	Target      string    `json:"target"`
	Priority    string    `json:"priority"`
	Nonce       string    `json:"nonce"`
	Ciphertext  string    `json:"ciphertext"`
	Sender      string    `json:"sender"`
	ClientID    *string   `json:"client_id,omitzero"`
	Fingerprint *string   `json:"fingerprint,omitzero"`
	CreatedAt   time.Time `json:"created_at"`
	Until       time.Time `json:"until,omitzero"`
}

func (r *row) stored() *storedRow {
	s := &storedRow{
		ID: r.id, Target: r.target, Priority: r.priority, Nonce: r.nonce, Ciphertext: r.ciphertext, Sender: r.sender,
		CreatedAt: r.createdAt.UTC(), Until: r.claimedUntil,
	}
	if r.senderHasClientID {
		s.ClientID = &r.clientID
	}
	if r.senderHasPrint {
		s.Fingerprint = &r.print
	}
	return s
}

func (s *storedRow) row() *row {
	r := &row{
		id: s.ID, target: s.Target, priority: s.Priority, nonce: s.Nonce, ciphertext: s.Ciphertext, sender: s.Sender,
		createdAt: s.CreatedAt, claimedUntil: s.Until,
	}
	if s.ClientID != nil {
		r.clientID, r.senderHasClientID = *s.ClientID, true
	}
	if s.Fingerprint != nil {
		r.print, r.senderHasPrint = *s.Fingerprint, true
	}
	return r
}

func appendRecord(dst []byte, r record) []byte {
	raw, err := json.Marshal(r, loose)
	if err != nil { // a record holds strings, times and JSON that was parsed already
		panic(fmt.Sprintf("devbroker: encode %s record: %v", r.Op, err))
	}
	return append(append(dst, raw...), '\n')
}

// journal is the data file: an append-only log, replayed and compacted at start and whenever it has grown far beyond what
// it stands for. It does not fsync: it outlives the process, not the machine.
type journal struct {
	mu     sync.Mutex
	path   string
	lock   *os.File // path.lock, held for as long as the broker runs
	f      *os.File
	size   int64
	packed int64 // size after the last compaction
	broken error // the first failed write; a log with a hole is not appended to
}

const minBloat = 256 << 20

func openJournal(path string, b *Broker) (*journal, error) {
	lock, err := lockData(path)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, lock: lock}
	if err := j.replay(b); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	for _, m := range b.order {
		m.queue.settle(b.opts.Now())
	}
	if err := j.compact(b); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return j, nil
}

// lockData keeps a second broker out: it would put its own compacted file in place of the one that the first appends to. The
// lock is on a file beside the data, which compaction replaces, and ends with the process however that ends.
func lockData(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%s is in use by another broker; stop it, or name another file", path)
		} else {
			err = fmt.Errorf("lock %s.lock: %w", path, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// replay applies the file's records. A torn last line, which a kill in mid-write leaves, was never acknowledged: dropped.
func (j *journal) replay(b *Broker) error {
	f, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for line := 1; ; line++ {
		raw, err := r.ReadBytes('\n')
		if err == io.EOF {
			if len(raw) > 0 {
				b.log.Warn("data file: torn last record dropped", "file", j.path, "line", line, "bytes", len(raw))
			}
			return nil
		}
		if err != nil {
			return err
		}
		var rec record
		if err := json.Unmarshal(raw, &rec, loose); err != nil {
			return fmt.Errorf("%s line %d is no record; is this a broker's -data file? %w", j.path, line, err)
		}
		m := b.meshes[rec.Mesh]
		if m == nil {
			return fmt.Errorf("%s line %d: mesh %q is not in the seed; start with the seed that the file was made with", j.path, line, rec.Mesh)
		}
		m.apply(rec)
	}
}

// apply replays one record.
func (m *mesh) apply(rec record) {
	q := &m.queue
	switch rec.Op {
	case opQueued:
		if rec.Row != nil {
			q.put(rec.Row.row())
		}
	case opClaimed:
		for _, id := range rec.IDs {
			if r := q.byID[id]; r != nil {
				r.claimedUntil = rec.At
			}
		}
	case opAcked:
		for _, id := range rec.IDs {
			if r := q.byID[id]; r != nil {
				q.deliver(r, rec.At)
			}
		}
	case opDone:
		for _, id := range rec.IDs {
			q.noteDone(id, rec.Target, rec.At)
		}
	case opExpired:
		for _, id := range rec.IDs {
			if r := q.byID[id]; r != nil {
				q.forget(r)
			}
		}
	case opState:
		if rec.State != nil {
			m.sized += rec.State.size(rec.Key) - m.state[rec.Key].size(rec.Key)
			m.state[rec.Key] = *rec.State
		}
	case opMember:
		if who := m.memberByID(rec.Member); who != nil {
			who.saved = rec.Saved
		}
	case opRevoked:
		if who := m.memberByID(rec.Member); who != nil {
			who.revoked, who.revokedAt = rec.Revoked, rec.At
		}
	}
}

// settle sorts replayed rows into claimed and ready.
func (q *queue) settle(now time.Time) {
	for target, l := range q.lanes {
		for i, rows := range l.ready {
			var ready []*row
			for _, r := range rows {
				switch {
				case r.delivered:
				case now.Before(r.claimedUntil):
					l.claimed = append(l.claimed, r)
				default:
					ready = append(ready, r)
				}
			}
			l.ready[i] = ready
		}
		slices.SortStableFunc(l.claimed, func(a, b *row) int { return a.claimedUntil.Compare(b.claimedUntil) })
		q.tidy(target, l)
	}
}

// append writes records with one write(2). first is true for the failure that broke the file.
func (j *journal) append(recs []byte) (first bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return false, j.broken
	}
	n, err := j.f.Write(recs)
	j.size += int64(n)
	if err != nil {
		j.broken = fmt.Errorf("append to %s: %w", j.path, err)
	}
	return j.broken != nil, j.broken
}

func (j *journal) bloated() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size > minBloat && j.size > 4*j.packed
}

// compact rewrites the file as a snapshot of b, with every mesh held meanwhile.
func (j *journal) compact(b *Broker) error {
	for _, m := range b.order {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	tmp := j.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := &countingWriter{w: bufio.NewWriterSize(f, 1<<20)}
	for _, m := range b.order {
		m.snapshot(w)
	}
	err = errors.Join(w.err, w.w.Flush())
	if err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(tmp))
	}
	var closing error
	if j.f != nil {
		closing = j.f.Close()
	}
	j.f, j.size, j.packed, j.broken = f, w.n, w.n, nil
	return closing
}

type countingWriter struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (w *countingWriter) put(r record) {
	n, err := w.w.Write(appendRecord(nil, r))
	w.n += int64(n)
	if w.err == nil {
		w.err = err
	}
}

func (m *mesh) snapshot(w *countingWriter) {
	for _, who := range m.members {
		if who.saved != nil {
			w.put(record{Op: opMember, Mesh: m.id, Member: who.MemberID, Saved: who.saved})
		}
		if who.revoked != who.Revoked {
			w.put(record{Op: opRevoked, Mesh: m.id, Member: who.MemberID, Revoked: who.revoked, At: who.revokedAt})
		}
	}
	for key, e := range m.state {
		w.put(record{Op: opState, Mesh: m.id, Key: key, State: &e})
	}
	q := &m.queue
	for i := range q.doneOrder {
		id := q.doneOrder[(q.doneHead+i)%len(q.doneOrder)]
		d := q.done[id]
		w.put(record{Op: opDone, Mesh: m.id, IDs: []string{id}, Target: d.target, At: d.at})
	}
	rows := make([]*row, 0, len(q.byID))
	for _, r := range q.byID {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, bySeq)
	for _, r := range rows {
		w.put(record{Op: opQueued, Mesh: m.id, Row: r.stored()})
	}
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken == nil {
		j.broken = fmt.Errorf("append to %s: %w", j.path, os.ErrClosed)
	}
	return errors.Join(j.f.Close(), j.lock.Close())
}
