package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bulk is how many messages go in one request.
const bulk = 60000

// bulkGroup is how many lines the ceiling of a bulk syncs at a time: as many as
// the daemon hands to the outbox together.
const bulkGroup = 256

// benchBulk measures one POST /v1/send/batch from its first byte to the answer to
// its last line, with the broker away.
func benchBulk(b *testing.B, bin built, tab *table) {
	f := &figure{name: "accept_bulk", unit: "1/s", per: bulk, aim: 60000}
	for range runs {
		took, err := bulkSync(filepath.Join(shortDir(b), "log"))
		if err != nil {
			b.Fatal(err)
		}
		f.ceil("group_fsync", bulk/took.Seconds())
		w, d := sender(b, bin, targets)
		w.broker.kill()
		d.bulk(b, w.requests(targets), 10*bulkGroup)
		pids := d.pids()
		delete(pids, "broker")
		m := newMeter(b, pids)
		began := time.Now()
		d.bulk(b, w.requests(targets), bulk)
		f.add(bulk / time.Since(began).Seconds())
		m.read(f)
		w.end(d)
		if n := d.outboxRows(""); n != bulk+10*bulkGroup {
			b.Fatalf("%d rows in the outbox of %d accepted", n, bulk+10*bulkGroup)
		}
	}
	tab.add(b, f)
}

// bulk sends n messages in one request and checks that each was queued under an
// id of its own.
func (d *daemon) bulk(b testing.TB, requests [][]byte, n int) {
	b.Helper()
	body, to := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(to, 256<<10)
		for i := range n {
			_, _ = out.Write(requests[i%len(requests)]) // Flush tells
			_ = out.WriteByte('\n')
		}
		_ = to.CloseWithError(out.Flush()) // never fails
	}()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
		},
		DisableKeepAlives: true, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10,
	}}
	resp, err := client.Post("http://localhost/v1/send/batch", "application/x-ndjson", body)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	ids := make(map[string]bool, n)
	lines := bufio.NewReaderSize(resp.Body, 256<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			b.Fatalf("after %d answers: %v", len(ids), err)
		}
		id := clientID(line)
		if id == "" || ids[id] || !bytes.Contains(line, []byte(`"status":"queued"`)) {
			b.Fatalf("answer %d: %s", len(ids)+1, line)
		}
		ids[id] = true
	}
	if resp.StatusCode != http.StatusOK || len(ids) != n {
		b.Fatalf("status %d, %d answers to %d messages", resp.StatusCode, len(ids), n)
	}
}

// bulkSync appends the same bytes to a plain file, one fdatasync a group.
func bulkSync(path string) (time.Duration, error) {
	g, err := newGroupSync(path)
	if err != nil {
		return 0, err
	}
	defer g.close()
	group := bytes.Repeat(sendRequest(fmt.Sprintf("%064d", 0)), bulkGroup)
	began := time.Now()
	for range bulk / bulkGroup {
		if _, err := g.file.Write(group); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(g.file.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
