package control

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// watched remembers why its reader failed: the transport tells only that the
// request did.
type watched struct {
	r io.Reader

	mu  sync.Mutex
	err error
}

// Read is io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.mu.Lock()
		w.err = fmt.Errorf("read the input: %w", err)
		w.mu.Unlock()
	}
	return n, err
}

// failed is the reader's error, if it had one.
func (w *watched) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
