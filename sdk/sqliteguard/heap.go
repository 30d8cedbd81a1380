package sqliteguard

import (
	"sync"

	"modernc.org/libc"
)

// keepHeap keeps SQLite's allocator from giving pages of memory back to the
// system and asking for them again at each turn: it unmaps a page as soon as
// nothing on it is in use, and SQLite's scratch space of a few KiB, of which
// one lives at a time, would cost two system calls at each use. One small block
// that stays on a page of each size keeps that page; together they take less
// than 128 KiB.
var keepHeap = sync.OnceFunc(func() {
	tls := libc.NewTLS()
	defer tls.Close()
	for size := uint64(16); size <= 16<<10; size *= 2 {
		libc.Xmalloc(tls, size)
	}
})
