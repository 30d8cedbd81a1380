package control

import (
	"net/http"
	"sync"
	"time"
)

// keepBuffer is the largest buffer that goes back to the pool, so that one big
// body doesn't stay in memory for ever.
const keepBuffer = 64 << 10

type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 2048)} }}

func getBuffer() *buffer {
	buf := buffers.Get().(*buffer)
	buf.b = buf.b[:0]
	return buf
}

func putBuffer(buf *buffer) {
	if cap(buf.b) <= keepBuffer {
		buffers.Put(buf)
	}
}

// jsonType is shared by all responses; net/http only reads it.
var jsonType = []string{"application/json"}

// writeBytes answers with a JSON body. An error of Write means that the client
// went away, which is its own business.
func writeBytes(w http.ResponseWriter, status int, body []byte) {
	limitAnswer(w)
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	w.Write(body)
}

// limitAnswer begins the time of an answer. Without it a client that reads
// nothing would keep its connection and a goroutine here for ever.
func limitAnswer(w http.ResponseWriter) {
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout)) // fails for a recorder of tests only
}
