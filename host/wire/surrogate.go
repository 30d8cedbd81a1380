package wire

import "strconv"

// MendSurrogates overwrites each escaped surrogate that has no partner, such as \ud800, by \ufffd, and reports whether there was
// one. A JavaScript broker hands such halves on as any peer wrote them, and [Classify] refuses the frame for it: one peer's
// host name would cost all others the whole peer list.
func MendSurrogates(raw []byte) bool {
	mended := false
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		u, ok := escaped(raw[i:])
		switch {
		case !ok:
			i++ // the escaped character
		case u < 0xd800 || u > 0xdfff:
			i += 5
		default:
			if low, ok := escaped(raw[i+6:]); ok && u < 0xdc00 && low >= 0xdc00 && low <= 0xdfff {
				i += 11
				continue
			}
			copy(raw[i+2:], "fffd")
			mended = true
			i += 5
		}
	}
	return mended
}

// escaped reads an escape of the form \uXXXX at the beginning of b.
func escaped(b []byte) (uint16, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return uint16(u), err == nil
}
