package control

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// maxEventLine bounds one line of an event stream: a message of 48,000 bytes
// with every byte escaped, and room around it.
const maxEventLine = 1 << 20

// readEvents parses a stream of server-sent events until it ends (io.EOF) or f
// fails. Comments and fields that we don't use are skipped.
func readEvents(r io.Reader, f func(StreamEvent) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var kind string
	var data []byte
	for {
		line, err := readLine(br)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			if data != nil {
				v := jsontext.Value(data)
				if !v.IsValid() {
					return fmt.Errorf("event stream: the data of a %q event is not JSON", kind)
				}
				if err := f(StreamEvent{Kind: kind, Data: v}); err != nil {
					return err
				}
			}
			kind, data = "", nil
			continue
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "event":
			kind = string(value)
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
			if data == nil {
				data = []byte{}
			}
		}
	}
}

// readLine returns one line without its end; it is valid until the next call.
func readLine(br *bufio.Reader) ([]byte, error) {
	var whole []byte
	for {
		part, err := br.ReadSlice('\n')
		switch {
		case err == nil && whole == nil:
			return bytes.TrimRight(part, "\r\n"), nil
		case err == nil:
			return bytes.TrimRight(append(whole, part...), "\r\n"), nil
		case err != bufio.ErrBufferFull:
			return nil, err
		}
		whole = append(whole, part...)
		if len(whole) > maxEventLine {
			return nil, fmt.Errorf("event stream: a line is longer than %d bytes", maxEventLine)
		}
	}
}
