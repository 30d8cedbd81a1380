package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// The bounds of POST /v1/send/batch.
const (
	maxBatches = 64        // requests at a time
	batchLines = 256       // messages that go to the outbox together
	batchBytes = 512 << 10 // and about so many bytes of them
	batchAhead = 3         // such batches of one request that wait for the outbox or for their reader
	// batchTokens bounds those of all requests on their way to the outbox; it is
	// half of what the outbox lets wait.
	batchTokens = 32
)

// line is one line of a batch.
type line struct {
	number int
	req    SendRequest
	err    error // of the line itself
	size   int
}

// lines are some in a row, with the end of the input behind them if it was
// reached; nil is the proper one.
type lines struct {
	lines []line
	bytes int
	end   error // io.EOF, or why no more could be read
}

// answers are lines whose outcomes are on their way.
type answers struct {
	lines
	wait func() []SendOutcome // of those lines without an error of their own
}

// batch is one POST /v1/send/batch. Three goroutines share the work: read
// decodes, prepare hands over, and the handler's own answers. Each waits for the
// next one: a client that does not read its answers is not read any more.
type batch struct {
	s              *Server
	ctx            context.Context
	mesh, priority string // of lines that name none
	read           chan lines
	prepared       chan answers
	next           int // number of the line that comes next; the reader's
}

// sendBatch is POST /v1/send/batch?mesh=&priority=: one message a line, each as
// POST /v1/send takes it, and one line of answer for each, in their order, as
// they come. Messages reach the outbox in the order of their lines.
func (s *Server) sendBatch(w http.ResponseWriter, r *http.Request) {
	select {
	case s.batches <- struct{}{}:
		defer func() { <-s.batches }()
	default:
		writeProblem(w, tooMany("batches", maxBatches))
		return
	}
	q := r.URL.Query()
	if err := checkPriority(q.Get("priority")); err != nil {
		writeProblem(w, err)
		return
	}
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		writeProblem(w, fmt.Errorf("answer while reading: %w", err))
		return
	}
	rc.SetReadDeadline(time.Time{}) // messages come as they come
	// The request's own context ends with any error of a read, the one that stops
	// the reading included; that the client is gone shows by reads and writes.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	b := &batch{
		s: s, ctx: ctx, mesh: q.Get("mesh"), priority: q.Get("priority"),
		read: make(chan lines, batchAhead), prepared: make(chan answers, batchAhead), next: 1,
	}
	var wg sync.WaitGroup
	read := make(chan struct{})
	wg.Go(func() {
		defer close(read)
		b.readAll(r.Body)
	})
	wg.Go(b.prepareAll)
	wg.Go(func() {
		select {
		case <-read:
			return
		case <-s.stopping:
		case <-ctx.Done():
		}
		rc.SetReadDeadline(time.Unix(1, 0)) // ends the read that is under way
	})
	defer wg.Wait()
	defer cancel()
	w.Header()["Content-Type"] = []string{ndjson}
	w.WriteHeader(http.StatusOK)
	rc.Flush() // a client that waits for the head before it writes must not wait for ever
	b.answerAll(w, rc)
}

// readAll decodes the body, as much of it at a time as is there.
func (b *batch) readAll(body io.Reader) {
	defer close(b.read)
	in := bufio.NewReaderSize(body, 64<<10)
	for {
		var got lines
		for first := true; got.room() && (first || whole(in)); first = false {
			got.take(b, in)
		}
		select {
		case b.read <- got:
		case <-b.ctx.Done():
			return
		}
		if got.end != nil {
			return
		}
	}
}

// room reports whether further lines may join.
func (got *lines) room() bool {
	return got.end == nil && len(got.lines) < batchLines && got.bytes < batchBytes
}

// whole reports whether a line can be read without waiting.
func whole(in *bufio.Reader) bool {
	ahead, err := in.Peek(in.Buffered())
	return err == nil && bytes.IndexByte(ahead, '\n') >= 0
}

// take reads one line.
func (got *lines) take(b *batch, in *bufio.Reader) {
	raw, long, err := readWhole(in, bodySend)
	switch {
	case errors.Is(err, io.EOF) && len(raw) > 0: // the last line needs no end
		got.end = io.EOF
	case err != nil:
		got.end = err
		return
	}
	l := line{number: b.next, size: len(raw)}
	b.next++
	switch {
	case long:
		l.err = tooLarge(bodySend)
	case len(raw) == 0:
		return
	default:
		l.req, l.err = b.decode(raw)
	}
	got.lines = append(got.lines, l)
	got.bytes += l.size
}

// readWhole reads a line without its end; one that is longer than most is read
// to its end and thrown away.
func readWhole(in *bufio.Reader, most int) (raw []byte, long bool, err error) {
	part, err := in.ReadSlice('\n')
	if err == nil || !errors.Is(err, bufio.ErrBufferFull) {
		return trimLine(part), false, err
	}
	raw = append([]byte(nil), part...)
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = in.ReadSlice('\n')
		if long = long || len(raw)+len(part) > most; !long {
			raw = append(raw, part...)
		}
	}
	return trimLine(raw), long, err
}

func trimLine(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

func (b *batch) decode(raw []byte) (SendRequest, error) {
	var body sendBody
	if err := json.Unmarshal(raw, &body, json.RejectUnknownMembers(true)); err != nil {
		return SendRequest{}, &Problem{
			Status: http.StatusBadRequest, Code: "invalid_json", Message: "the line: " + jsonWords(err),
			Next: "write one JSON object a line, with the fields of POST /v1/send",
		}
	}
	if err := body.check(); err != nil {
		return SendRequest{}, err
	}
	req := body.request()
	if req.Mesh == "" {
		req.Mesh = b.mesh
	}
	if req.Priority == "" {
		req.Priority = b.priority
	}
	return req, nil
}

// prepareAll hands messages over, as many at a time as are there.
func (b *batch) prepareAll() {
	defer close(b.prepared)
	for got := range b.read {
		for more := true; more && got.room(); {
			select {
			case next, ok := <-b.read:
				if more = ok; ok {
					got.lines, got.bytes, got.end = append(got.lines, next.lines...), got.bytes+next.bytes, next.end
				}
			default:
				more = false
			}
		}
		if !b.hand(got) {
			return
		}
	}
}

func (b *batch) hand(got lines) bool {
	reqs := make([]SendRequest, 0, len(got.lines))
	for i := range got.lines {
		if got.lines[i].err == nil {
			reqs = append(reqs, got.lines[i].req)
		}
	}
	out := answers{got, func() []SendOutcome { return nil }}
	if len(reqs) > 0 {
		select {
		case b.s.tokens <- struct{}{}:
		case <-b.ctx.Done():
			return false
		}
		wait := b.s.opts.Outbound.SendMany(b.ctx, reqs)
		done := make(chan []SendOutcome, 1)
		go func() { // ends with the outbox's answer, for which the token stands
			defer func() { <-b.s.tokens }()
			done <- wait()
		}()
		out.wait = func() []SendOutcome { return <-done }
	}
	select {
	case b.prepared <- out:
		return true
	case <-b.ctx.Done():
		out.wait()
		return false
	}
}

// answerAll writes what became of each line, until the input ends or the client
// is gone.
func (b *batch) answerAll(w http.ResponseWriter, rc *http.ResponseController) {
	buf := getBuffer()
	defer putBuffer(buf)
	for a := range b.prepared {
		outcomes := a.wait()
		buf.b = buf.b[:0]
		for i := range a.lines.lines {
			l := &a.lines.lines[i]
			if l.err != nil {
				buf.b = appendLineProblem(buf.b, l.number, l.err)
				continue
			}
			buf.b = appendOutcome(buf.b, l.number, &outcomes[0])
			outcomes = outcomes[1:]
		}
		if a.end != nil && !errors.Is(a.end, io.EOF) {
			buf.b = appendLineProblem(buf.b, b.next, b.cut(a.end))
		}
		limitAnswer(w)
		if _, err := w.Write(buf.b); err != nil || rc.Flush() != nil {
			return
		}
	}
}

// cut says why no more lines are read.
func (b *batch) cut(err error) error {
	if b.s.isStopping() {
		return &Problem{
			Status: http.StatusServiceUnavailable, Code: "stopping", Message: "the daemon is stopping",
			Next: "send this line and those after it again once it runs",
		}
	}
	return &Problem{
		Status: http.StatusBadRequest, Code: "incomplete_body", Message: "read the lines: " + err.Error(),
		Next: "send this line and those after it again",
	}
}

func appendOutcome(b []byte, number int, o *SendOutcome) []byte {
	if o.Err != nil {
		return appendLineProblem(b, number, o.Err)
	}
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, int64(number), 10)
	b = append(b, ',')
	from := len(b)
	b = appendSendReply(b, &o.Reply)
	b = append(b[:from], b[from+1:]...) // its brace
	return append(b, '\n')
}

// appendLineProblem appends the body of a problem with its line and the status
// that POST /v1/send would have had.
func appendLineProblem(b []byte, number int, err error) []byte {
	p := *problemOf(err)
	if p.Next == "" {
		p.Next = statusNext[p.Status]
	}
	b = append(b, `{"line":`...)
	b = strconv.AppendInt(b, int64(number), 10)
	b = append(b, `,"http_status":`...)
	b = strconv.AppendInt(b, int64(p.Status), 10)
	b = append(b, ',')
	from := len(b)
	b = appendProblem(b, &p)
	b = append(b[:from], b[from+1:]...)
	return append(b, '\n')
}
