package wire

import (
	stdjson "encoding/json"
	"reflect"
	"testing"
)

func TestHalvesOfSurrogatePairsAreMendedAndNothingElse(t *testing.T) {
	for raw, want := range map[string]string{
		`{"type":"a","x":"\ud800"}`:                   `{"type":"a","x":"\ufffd"}`,
		`{"type":"a","x":"\uDFFFz\udbff\u0041"}`:      `{"type":"a","x":"\ufffdz\ufffd\u0041"}`,
		`{"type":"a","x":"\ud800\ud83d\ude00\udc00"}`: `{"type":"a","x":"\ufffd\ud83d\ude00\ufffd"}`,
		`{"type":"a","x":"\ud83d\ude00 \\ud800 \n"}`:  "",
		`{"type":"a","x":"\\\ud800"}`:                 `{"type":"a","x":"\\\ufffd"}`,
		`{"type":"a","x":"\u00`:                       "",
		`\`:                                           "",
		`\ud80`:                                       "",
		`{"type":"a"}`:                                "",
	} {
		got := []byte(raw)
		mended := MendSurrogates(got)
		if want == "" {
			want = raw
		}
		if string(got) != want || mended != (want != raw) {
			t.Errorf("%s became %s (%v), want %s", raw, got, mended, want)
		}
		if _, err := Classify(got); mended && err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// FuzzMendSurrogates holds it against encoding/json, which reads a half as U+FFFD: the value stays, and no half is left.
func FuzzMendSurrogates(f *testing.F) {
	f.Add([]byte(`"\ud800"`))
	f.Add([]byte(`"\\ud800\udc00\ud800\\\udfff"`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var before, after any
		if stdjson.Unmarshal(raw, &before) != nil {
			return
		}
		MendSurrogates(raw)
		if err := stdjson.Unmarshal(raw, &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Fatalf("%q: %v became %v, %v", raw, before, after, err)
		}
		if MendSurrogates(raw) {
			t.Fatalf("%q: something was left", raw)
		}
	})
}

func TestAnOddMemberOfAHelloAckCostsThatMemberOnly(t *testing.T) {
	for raw, profile := range map[string]bool{
		`{"type":"hello_ack","presenceId":"p","memberProfile":{"roleTag":null,"groups":["dev"],"messageMode":"push"}}`:                         true,
		`{"type":"hello_ack","presenceId":"p","memberDisplayName":7,"restored":true,"restoredGroups":{"a":1},"memberProfile":{}}`:              true,
		`{"type":"hello_ack","presenceId":"p","memberDisplayName":null,"lastSeenAt":1700000000}`:                                               false,
		`{"type":"hello_ack","presenceId":"p","memberDisplayName":"a","memberProfile":{"roleTag":"r","groups":[],"messageMode":"push"},"x":1}`: true,
	} {
		ack, err := DecodeHelloAck([]byte(raw))
		if err != nil || ack.PresenceID != "p" || (ack.MemberProfile != nil) != profile {
			t.Errorf("%s: %+v, %v", raw, ack, err)
		}
	}
	if ack, err := DecodeHelloAck([]byte(`{"type":"hello_ack","presenceId":7}`)); err == nil {
		t.Errorf("without a presence: %+v", ack)
	}
}
