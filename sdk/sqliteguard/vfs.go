package sqliteguard

import (
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// vfsName is the file layer that Open asks SQLite for: the system's own, but for
// how pages of a database are read and written.
const vfsName = "meshhost-guard"

// The functions of SQLite's file layer that are called or replaced here.
type (
	openFunc = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	ioFunc   = func(tls *libc.TLS, file, buf uintptr, amount int32, offset int64) int32
)

// layer is what register sets up, once for the life of the process.
var layer struct {
	once sync.Once
	err  error

	base        uintptr // the system's sqlite3_vfs
	open        openFunc
	mu          sync.Mutex
	methods     map[uintptr]uintptr // the system's sqlite3_io_methods to ours
	read, write map[uintptr]ioFunc  // by ours
}

// at reads memory of SQLite's as a T; the garbage collector has no part in it.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// function makes a function of SQLite's callable.
func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ p uintptr }{p})) }

// pointer is what SQLite calls f by; f is a top-level function.
func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f})) }

// register makes the layer known to SQLite.
func register() error {
	layer.once.Do(func() { layer.err = setUp() })
	return layer.err
}

func setUp() error {
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("start SQLite: code %d", rc)
	}
	layer.base = sqlite3.Xsqlite3_vfs_find(tls, 0)
	if layer.base == 0 {
		return fmt.Errorf("SQLite has no file layer for this system")
	}
	// SQLite keeps both for ever.
	own := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	name, err := libc.CString(vfsName)
	if own == 0 || err != nil {
		return fmt.Errorf("register the file layer: out of memory: %w", err)
	}
	vfs := at[sqlite3.Tsqlite3_vfs](own)
	*vfs = *at[sqlite3.Tsqlite3_vfs](layer.base)
	layer.open = function[openFunc](vfs.FxOpen)
	layer.methods, layer.read, layer.write = map[uintptr]uintptr{}, map[uintptr]ioFunc{}, map[uintptr]ioFunc{}
	vfs.FpNext, vfs.FzName, vfs.FxOpen = 0, name, pointer(openFile)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, own, 0); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("register the file layer: code %d", rc)
	}
	return nil
}

// openFile opens as the system does and takes over the methods of a database.
func openFile(tls *libc.TLS, _, name, file uintptr, flags int32, outFlags uintptr) int32 {
	rc := layer.open(tls, layer.base, name, file, flags, outFlags)
	if rc != sqlite3.SQLITE_OK || flags&sqlite3.SQLITE_OPEN_MAIN_DB == 0 {
		return rc
	}
	f := at[sqlite3.Tsqlite3_file](file)
	f.FpMethods = takeOver(tls, f.FpMethods)
	return sqlite3.SQLITE_OK
}

// takeOver returns methods that are the system's but for read and write. The
// system has a handful of sets of methods, one for each way to lock.
func takeOver(tls *libc.TLS, system uintptr) uintptr {
	layer.mu.Lock()
	defer layer.mu.Unlock()
	if own := layer.methods[system]; own != 0 {
		return own
	}
	own := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	if own == 0 {
		return system
	}
	m := at[sqlite3.Tsqlite3_io_methods](own)
	*m = *at[sqlite3.Tsqlite3_io_methods](system)
	layer.read[own], layer.write[own] = function[ioFunc](m.FxRead), function[ioFunc](m.FxWrite)
	m.FxRead, m.FxWrite = pointer(readPage), pointer(writePage)
	m.FiVersion = min(m.FiVersion, 2) // 3 would read pages by a mapping, past readPage
	layer.methods[system] = own
	return own
}

// methodsOf are the system's functions for a file that is open.
func methodsOf(file uintptr) (read, write ioFunc) {
	own := at[sqlite3.Tsqlite3_file](file).FpMethods
	layer.mu.Lock()
	defer layer.mu.Unlock()
	return layer.read[own], layer.write[own]
}

// headerPiece is below the size of any page: SQLite reads some of the header by
// itself, and then again with the first page.
const headerPiece = 512

// readPage tests what was read. SQLite reads whole pages, and of a long value all
// but the bytes that it has no part in.
func readPage(tls *libc.TLS, file, buf uintptr, amount int32, offset int64) int32 {
	read, _ := methodsOf(file)
	switch {
	case amount < headerPiece:
		return read(tls, file, buf, amount, offset)
	case amount > PageSize || offset%PageSize != 0:
		return sqlite3.SQLITE_CORRUPT // the header's page size is not what it was
	}
	whole := buf
	if amount < PageSize {
		whole = tls.Alloc(PageSize)
		defer tls.Free(PageSize)
	}
	switch rc := read(tls, file, whole, PageSize, offset); rc {
	case sqlite3.SQLITE_OK:
	case sqlite3.SQLITE_IOERR_SHORT_READ:
		// The file ends before a page that is neither in the WAL nor new: SQLite
		// would go on with zeros.
		return sqlite3.SQLITE_CORRUPT
	default:
		return rc
	}
	page := unsafe.Slice(at[byte](whole), PageSize)
	if !sound(number(offset), page) {
		return sqlite3.SQLITE_CORRUPT
	}
	// So that a checksum never outlives what it is of: the page may go, changed,
	// to the WAL, and from there by another program into the file.
	clear(page[PageSize-reserved:])
	if whole != buf {
		copy(unsafe.Slice(at[byte](buf), amount), page)
	}
	return sqlite3.SQLITE_OK
}

// writePage puts the checksum into a copy: the page is SQLite's.
func writePage(tls *libc.TLS, file, buf uintptr, amount int32, offset int64) int32 {
	_, write := methodsOf(file)
	if amount != PageSize || offset%PageSize != 0 {
		return write(tls, file, buf, amount, offset)
	}
	stamped := tls.Alloc(PageSize)
	defer tls.Free(PageSize)
	page := unsafe.Slice(at[byte](stamped), PageSize)
	copy(page, unsafe.Slice(at[byte](buf), PageSize))
	stamp(number(offset), page)
	return write(tls, file, stamped, amount, offset)
}

func number(offset int64) uint32 { return uint32(offset/PageSize) + 1 }
