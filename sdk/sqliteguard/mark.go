package sqliteguard

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
)

// markSuffix is what the mark's file has beyond the database's name.
const markSuffix = "-mark"

// markMagic begins a mark, and names its version.
const markMagic = "mhmark1\n"

// mark is what is known of a database beside it.
type mark struct {
	n      int64 // transactions that are durable
	summed bool  // pages have checksums
}

// bytes is the mark in its file: magic, number, 1 for checksums, checksum.
func (m mark) bytes() []byte {
	b := binary.BigEndian.AppendUint64([]byte(markMagic), uint64(m.n))
	if m.summed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readMark reads a mark; false if there is none or power loss left half of it.
func readMark(path string) (m mark, known bool, err error) {
	b, err := os.ReadFile(path + markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil || len(b) != len(m.bytes()) {
		return m, false, err
	}
	m.n = int64(binary.BigEndian.Uint64(b[len(markMagic):]))
	m.summed = b[len(markMagic)+8] == 1
	return m, string(b) == string(m.bytes()), nil
}
