package sqliteguard

import (
	"encoding/binary"
	"hash/crc32"
)

// PageSize is that of a file that [Create] made, in bytes; a new one has one page.
const PageSize = 4096 // SQLite's default

// reserved are the bytes at a page's end that SQLite leaves alone.
const reserved = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the checksum of a page; its number is part of it, so that a page in
// another's place is seen. It is never 0, which stands for none.
func sum(number uint32, page []byte) uint32 {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], number)
	s := crc32.Update(crc32.Checksum(n[:], castagnoli), castagnoli, page[:PageSize-reserved])
	return max(s, 1)
}

// stamp writes a page's checksum into it.
func stamp(number uint32, page []byte) {
	binary.BigEndian.PutUint32(page[PageSize-reserved:], sum(number, page))
}

// sound reports whether a page is as it was written. One without a checksum was
// moved out of the WAL by another program.
func sound(number uint32, page []byte) bool {
	s := binary.BigEndian.Uint32(page[PageSize-reserved:])
	return s == 0 || s == sum(number, page)
}

// firstPage is an empty database in WAL mode with room for checksums: the header
// of the file format and a table of no rows.
func firstPage() []byte {
	p := make([]byte, PageSize)
	copy(p, magic)
	binary.BigEndian.PutUint16(p[16:], PageSize)
	p[18], p[19] = 2, 2 // WAL
	p[20] = reserved
	p[21], p[22], p[23] = 64, 32, 32            // fixed by the format
	binary.BigEndian.PutUint32(p[24:], 1)       // changes
	binary.BigEndian.PutUint32(p[28:], 1)       // pages
	binary.BigEndian.PutUint32(p[44:], 4)       // schema format
	binary.BigEndian.PutUint32(p[56:], 1)       // UTF-8
	binary.BigEndian.PutUint32(p[92:], 1)       // the change that pages is of
	binary.BigEndian.PutUint32(p[96:], 3007000) // the version that brought WAL
	p[100] = 13                                 // a leaf
	binary.BigEndian.PutUint16(p[105:], PageSize-reserved)
	stamp(1, p)
	return p
}

// magic opens every SQLite file.
const magic = "SQLite format 3\x00"
