package devbroker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// WebSocket opcodes (RFC 6455, 5.2).
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
)

var (
	errFrameTooLong = errors.New("frame longer than 16 MiB")
	errBadFrame     = errors.New("malformed WebSocket frame")
)

// frameReader reads a client's frames. The broker speaks the framing itself and not through a WebSocket library: it must
// send pings with an empty payload, cut a connection without a close frame and put many frames into one write.
type frameReader struct {
	r   *bufio.Reader
	msg []byte // the message being put together; reused
	op  byte   // opcode of the message being put together; 0 = none
}

// next returns the next control frame or whole data message. The payload is valid until the next call.
func (f *frameReader) next() (op byte, payload []byte, err error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(f.r, head[:]); err != nil {
			return 0, nil, err
		}
		fin, op := head[0]&0x80 != 0, head[0]&0x0F
		if head[0]&0x70 != 0 || head[1]&0x80 == 0 { // no extension was agreed; a client masks (RFC 6455, 5.1)
			return 0, nil, errBadFrame
		}
		size, err := f.size(head[1] & 0x7F)
		if err != nil {
			return 0, nil, err
		}
		var mask [4]byte
		if _, err := io.ReadFull(f.r, mask[:]); err != nil {
			return 0, nil, err
		}
		if op >= opClose {
			if !fin || size > 125 || op > opPong {
				return 0, nil, errBadFrame
			}
			payload := make([]byte, size)
			if _, err := io.ReadFull(f.r, payload); err != nil {
				return 0, nil, err
			}
			unmask(payload, mask)
			return op, payload, nil
		}
		if err := f.data(op, size, mask); err != nil {
			return 0, nil, err
		}
		if fin {
			op, f.op = f.op, 0
			return op, f.msg, nil
		}
	}
}

func (f *frameReader) size(short byte) (uint64, error) {
	var ext [8]byte
	switch short {
	case 126:
		_, err := io.ReadFull(f.r, ext[:2])
		return uint64(binary.BigEndian.Uint16(ext[:2])), err
	case 127:
		_, err := io.ReadFull(f.r, ext[:])
		return binary.BigEndian.Uint64(ext[:]), err
	}
	return uint64(short), nil
}

// data reads one fragment into msg.
func (f *frameReader) data(op byte, size uint64, mask [4]byte) error {
	switch {
	case op > opBinary, op == opContinue && f.op == 0, op != opContinue && f.op != 0:
		return errBadFrame
	case op != opContinue:
		f.op = op
		if cap(f.msg) > 256<<10 { // one huge message must not keep its buffer for the connection's life
			f.msg = nil
		}
		f.msg = f.msg[:0]
	}
	have := len(f.msg)
	if size > maxFrame || uint64(have)+size > maxFrame {
		return errFrameTooLong
	}
	need := have + int(size)
	for len(f.msg) < need { // grow by what arrives, not by what the header claims
		step := min(need-len(f.msg), 64<<10)
		start := len(f.msg)
		f.msg = append(f.msg, make([]byte, step)...)
		if _, err := io.ReadFull(f.r, f.msg[start:]); err != nil {
			return err
		}
	}
	unmask(f.msg[have:], mask)
	return nil
}

func unmask(b []byte, mask [4]byte) {
	wide := uint64(binary.LittleEndian.Uint32(mask[:]))
	wide |= wide << 32
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
}

// appendFrame appends one whole, unmasked frame to dst.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n <= 0xFFFF:
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, payload...)
}

func closePayload(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}
