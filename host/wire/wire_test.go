package wire

import (
	"bufio"
	"bytes"
	stdjson "encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// typed makes an empty value of each type that this package knows.
var typed = map[string]func() Typed{
	TypeHello: func() Typed { return new(Hello) }, TypeSessionHello: func() Typed { return new(SessionHello) },
	TypeHelloAck: func() Typed { return new(HelloAck) }, TypeError: func() Typed { return new(Error) },
	TypeSend: func() Typed { return new(Send) }, TypeAck: func() Typed { return new(Ack) }, TypePush: func() Typed { return new(Push) },
	TypeClientAck: func() Typed { return new(ClientAck) }, TypeListPeers: func() Typed { return new(ListPeers) },
	TypePeersList: func() Typed { return new(PeersList) }, TypeGetState: func() Typed { return new(GetState) },
	TypeSetState: func() Typed { return new(SetState) }, TypeStateResult: func() Typed { return new(StateResult) },
	TypeListState: func() Typed { return new(ListState) }, TypeStateList: func() Typed { return new(StateList) },
	TypeStateChange: func() Typed { return new(StateChange) }, TypeMessageStatus: func() Typed { return new(MessageStatus) },
	TypeMessageStatusResult: func() Typed { return new(MessageStatusResult) }, TypeSetStatus: func() Typed { return new(SetStatus) },
	TypeSetSummary: func() Typed { return new(SetSummary) }, TypeSetVisible: func() Typed { return new(SetVisible) },
	TypeSetProfile: func() Typed { return new(SetProfile) }, TypeSetStats: func() Typed { return new(SetStats) },
	TypeJoinGroup: func() Typed { return new(JoinGroup) }, TypeLeaveGroup: func() Typed { return new(LeaveGroup) },
}

type recordedFrame struct {
	Dir   string             `json:"dir"`
	Frame stdjson.RawMessage `json:"frame"`
}

// recorded reads frames that clients and a reference broker wrote.
func recorded(t testing.TB) (all []recordedFrame) {
	t.Helper()
	f, err := os.Open("testdata/frames.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r recordedFrame
		if err := stdjson.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func generic(t testing.TB, raw []byte) map[string]any {
	t.Helper()
	d := stdjson.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return m
}

func TestRecordedFramesSurviveDecodeAndEncode(t *testing.T) {
	known := 0
	for _, r := range recorded(t) {
		want := generic(t, r.Frame)
		typ, _ := want["type"].(string)
		make := typed[typ]
		if make == nil {
			continue
		}
		v := make()
		if err := Decode(r.Frame, v); err != nil {
			if r.Dir == "recv" {
				t.Errorf("%s: %v", r.Frame, err)
			}
			continue // clients were also recorded sending nonsense
		}
		known++
		raw, err := EncodeAny(v)
		if err != nil {
			t.Errorf("%s: %v", r.Frame, err)
			continue
		}
		got := generic(t, raw)
		if r.Dir == "send" {
			dropNeedless(want, got)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("recorded %s\nencoded  %s", r.Frame, raw)
		}
	}
	if known < 90 {
		t.Errorf("only %d recorded frames have a type here", known)
	}
}

// dropNeedless levels what recorded clients left out, or added without meaning, to see what a broker does.
func dropNeedless(want, got map[string]any) {
	for name := range want {
		if _, ok := got[name]; !ok {
			delete(want, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			delete(got, name)
		}
	}
}

func TestClassifyRecordedFrames(t *testing.T) {
	kinds := map[Kind]int{}
	for _, r := range recorded(t) {
		if r.Dir != "recv" {
			continue
		}
		f, err := Classify(r.Frame)
		if err != nil {
			t.Fatalf("%s: %v", r.Frame, err)
		}
		if f.Kind == KindUnknown && f.ReqID != "" {
			t.Errorf("%s answers a request and isn't known as a reply", f.Type)
		}
		kinds[f.Kind]++
	}
	for k := KindHelloAck; k <= KindEvent; k++ {
		if kinds[k] == 0 {
			t.Errorf("no recorded frame is of kind %s", k)
		}
	}
}

func TestClassify(t *testing.T) {
	cases := []struct {
		raw          string
		kind         Kind
		reqID, id    string
		correlatesTo string
	}{
		{`{"type":"ack","id":"a","messageId":"m","queued":true}`, KindAck, "", "a", "a"},
		{`{"type":"ack","id":"sp-1","messageId":"","queued":false,"_reqId":"sp-1"}`, KindAck, "sp-1", "sp-1", "sp-1"},
		{`{"type":"memory_stored","id":"row","_reqId":"r"}`, KindReply, "r", "row", "r"},
		{`{"type":"error","code":"topic_not_found","message":"x","id":"q"}`, KindError, "", "q", "q"},
		{`{"type":"inbound","messageId":"m"}`, KindPush, "", "", ""},
		{`{"type":"state_change","key":"k"}`, KindEvent, "", "", ""},
		{`{"type":"brand_new"}`, KindUnknown, "", "", ""},
		{`{"id":7,"_reqId":null,"type":"peers_list","peers":[]}`, KindReply, "", "", ""},
		{`{"\u0074ype":"ack","\u0069d":"esc"}`, KindAck, "", "esc", "esc"},
	}
	for _, c := range cases {
		f, err := Classify([]byte(c.raw))
		if err != nil || f.Kind != c.kind || f.ReqID != c.reqID || f.ID != c.id || f.CorrelationID() != c.correlatesTo {
			t.Errorf("%s: %+v, %v", c.raw, f, err)
		}
	}
	bad := []string{``, `null`, `[]`, `{}`, `"x"`, `{"type":1}`, `{"type":"a","type":"b"}`, `{"type":"a","x":{"y":1,"y":2}}`, `{"type":"a"} x`, `{"type":"a"`, "{\"type\":\"a\",\"x\":\"\xff\"}", `{"type":"a","x":"\ud800"}`, `{"type":"a"}{"type":"b"}`}
	for _, raw := range bad {
		if f, err := Classify([]byte(raw)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v; want ErrMalformed", raw, f, err)
		}
	}
}

func TestClassifyLeavesTheFrameAsItIs(t *testing.T) {
	raw := []byte(`{"\u0074ype":"ack" , "\u0069d":"x","n":1.50}`)
	before := bytes.Clone(raw)
	f, err := Classify(raw)
	if err != nil || !bytes.Equal(raw, before) || !bytes.Equal(f.Raw, before) {
		t.Errorf("%s became %s, %v", before, raw, err)
	}
}

func TestAckAndErrorAreReadInTheOnePass(t *testing.T) {
	f, err := Classify([]byte(`{"type":"ack","id":"i","messageId":"m","queued":true,"error":"rate_limit: x","_reqId":"r"}`))
	if want := (Ack{ID: "i", MessageID: "m", Queued: true, Error: "rate_limit: x", ReqID: "r"}); err != nil || f.Ack() != want {
		t.Errorf("%+v, %v", f.Ack(), err)
	}
	f, err = Classify([]byte(`{"message":"m","code":"c","id":"i","_reqId":"r","type":"error"}`))
	if want := (Error{Code: "c", Message: "m", ID: "i", ReqID: "r"}); err != nil || f.Error() != want {
		t.Errorf("%+v, %v", f.Error(), err)
	}
}

func TestTheBrokersWordsAreBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, raw := range []string{`{"type":"ack","id":"i","error":"` + long + `"}`, `{"type":"error","code":"c","message":"` + long + `"}`} {
		f, err := Classify([]byte(raw))
		if words := f.Ack().Error + f.Error().Message; err != nil || len(words) < maxWords || len(words) > maxWords+3 || !utf8.ValidString(words) {
			t.Errorf("%d bytes, %v", len(words), err)
		}
	}
}

func TestValuesOfUsersSurviveByteForByte(t *testing.T) {
	for _, value := range []string{`1.50`, `12345678901234567890123`, `{"b": 1,"a":[1e2,-0]}`, `"\u00e9"`, `null`} {
		raw := []byte(`{"type":"state_result","key":"k","value":` + value + `,"updatedBy":"a","updatedAt":"t","_reqId":"r"}`)
		var s StateResult
		if err := Decode(raw, &s); err != nil || string(s.Value) != value {
			t.Errorf("%s decodes to %s, %v", value, s.Value, err)
		}
	}
	r := Request{Type: "set_state", Body: jsontext.Value(` { "key":"k", "value":1.50 } `)}
	if raw, err := r.Encode(); err != nil || !strings.Contains(string(raw), `"value":1.50`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestUnknownPeerMembersAreKept(t *testing.T) {
	row := `{"pubkey":"aa","memberPubkey":"bb","displayName":"A","status":"idle","summary":null,"groups":[{"name":"g","role":"r"}],"sessionId":"s","connectedAt":"t","cwd":"/","peerRole":"session","stats":{"messagesIn":1.0},"visible":false,"profile":{"title":"x"},"brandNew":{"a":[1.50]}}`
	peers, bad, err := DecodePeers([]byte(`{"type":"peers_list","peers":[` + row + `,{"pubkey":5},7]}`))
	if err != nil || bad != 2 || len(peers) != 1 {
		t.Fatalf("%d peers, %d bad, %v", len(peers), bad, err)
	}
	again, err := json.Marshal(peers[0])
	if err != nil || !reflect.DeepEqual(generic(t, again), generic(t, []byte(row))) || !strings.Contains(string(again), "1.50") {
		t.Errorf("%s became %s, %v", row, again, err)
	}
	if _, _, err := DecodePeers([]byte(`{"type":"peers_list"}`)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a list without peers: %v", err)
	}
}

func TestPresenceOfTheMemberProfileIsVisible(t *testing.T) {
	var a, b HelloAck
	if err := Decode([]byte(`{"type":"hello_ack","presenceId":"p","memberDisplayName":"n","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"}}`), &a); err != nil || a.MemberProfile == nil {
		t.Errorf("%+v, %v", a, err)
	}
	if err := Decode([]byte(`{"type":"hello_ack","presenceId":"p","memberDisplayName":"n"}`), &b); err != nil || b.MemberProfile != nil {
		t.Errorf("%+v, %v", b, err)
	}
	if err := Decode([]byte(`{"type":"ack"}`), &b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a frame of another type: %v", err)
	}
}

func TestFramesAboveTheLimitAreRefused(t *testing.T) {
	if _, err := Encode(SetSummary{Summary: strings.Repeat("x", MaxFrame)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if raw, err := Encode(SetSummary{Summary: strings.Repeat("x", MaxFrame-len(`{"type":"set_summary","summary":""}`))}); err != nil || len(raw) != MaxFrame {
		t.Errorf("%d bytes, %v; want exactly the limit to pass", len(raw), err)
	}
	if _, err := (Request{Type: "x", Body: jsontext.Value(`{"a":"` + strings.Repeat("x", MaxFrame) + `"}`)}).Encode(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestRequestBodiesCantChangeTheFrame(t *testing.T) {
	for _, body := range []string{`{"type":"send"}`, `{"\u0074ype":"send"}`, `{"_reqId":"x"}`, `[]`, `{`, `{}{}`, `{"a":1,"a":2}`, `1`, `}`, `{]`, "{\"a\":\"\xff\"}"} {
		if raw, err := (Request{Type: "get_state", ReqID: "r", Body: jsontext.Value(body)}).Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %s, %v", body, raw, err)
		}
	}
	if raw, err := (Request{Type: "list_peers", ReqID: "r"}).Encode(); err != nil || string(raw) != `{"type":"list_peers","_reqId":"r"}` {
		t.Errorf("%s, %v", raw, err)
	}
}

// FuzzClassify holds the scanner against encoding/json: what the strict reader accepts the lenient one reads the same way.
func FuzzClassify(f *testing.F) {
	for _, r := range recorded(f) {
		f.Add([]byte(r.Frame))
	}
	f.Add([]byte(`{"type":"push","eventData":{ "a":"\u00e9", "b":1.50 }}`))
	f.Add([]byte(`{"\u0074ype":"ack","id":"\ud83d\ude00"}`))
	f.Add([]byte(`{"type":"ack"}}`))
	f.Add([]byte(`{"type":"ack"} ]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		got, err := Classify(raw)
		if !bytes.Equal(raw, before) {
			t.Fatalf("%q was changed", before)
		}
		var want map[string]any
		dec := stdjson.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber() // a number beyond float64 is a number all the same
		lenient := dec.Decode(&want)
		if _, after := dec.Token(); lenient == nil && after != io.EOF {
			lenient = errors.New("something follows the value")
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if lenient != nil || !utf8.Valid(raw) {
			t.Fatalf("%q is accepted, encoding/json says %v", raw, lenient)
		}
		text := func(name string) string { s, _ := want[name].(string); return s }
		if got.Type != text("type") || got.ReqID != text("_reqId") || got.ID != text("id") {
			t.Fatalf("%q: %+v", raw, got)
		}
		if got.Kind == KindAck {
			a := got.Ack()
			queued, _ := want["queued"].(bool)
			if a.MessageID != text("messageId") || a.Error != text("error") || a.Queued != queued {
				t.Fatalf("%q: %+v", raw, a)
			}
		}
		if got.Kind == KindPush {
			if p, err := DecodePush(raw); err == nil {
				again, err := EncodeAny(p)
				if err != nil {
					t.Fatalf("%q: %v", raw, err)
				}
				q, err := DecodePush(again)
				if err != nil {
					t.Fatalf("%q: %v", again, err)
				}
				if (p.EventData == nil) != (q.EventData == nil) || p.EventData != nil && !sameJSON(t, p.EventData, q.EventData) {
					t.Fatalf("%q\nbecame %q", raw, again)
				}
				p.Raw, q.Raw, p.EventData, q.EventData = nil, nil, nil, nil // white space may go
				if !reflect.DeepEqual(p, q) {
					t.Fatalf("%q\nbecame %q", raw, again)
				}
			}
		}
	})
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	return reflect.DeepEqual(generic(t, []byte(`{"v":`+string(a)+`}`)), generic(t, []byte(`{"v":`+string(b)+`}`)))
}

// FuzzAppendSend holds the hand-written encoder against the library's, and both against encoding/json.
func FuzzAppendSend(f *testing.F) {
	f.Add("id", "cmid", "fp", "target", "next", "n", "c", "mention", "reply", 1)
	f.Add("", "", "", "", "", "", "", "", "", 0)
	f.Add("\"\\\n", "é", "\u2028", "<&>", "\x00", "\x7f", "😀", "x", "", -1)
	f.Fuzz(func(t *testing.T, id, cmid, fp, target, priority, nonce, ciphertext, mention, reply string, version int) {
		s := Send{ID: id, ClientMessageID: cmid, RequestFingerprint: fp, TargetSpec: target, Priority: priority, Nonce: nonce, Ciphertext: ciphertext, ReplyToID: reply, BodyVersion: version}
		if mention != "" {
			s.Mentions = []string{mention, "b"}
		}
		byHand, err1 := AppendSend([]byte("kept"), &s)
		byLibrary, err2 := EncodeAny(s)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("%v, %v", err1, err2)
		}
		if err1 != nil {
			return
		}
		if string(byHand) != "kept"+string(byLibrary) {
			t.Fatalf("%s\n%s", byHand, byLibrary)
		}
		var back Send
		if err := stdjson.Unmarshal(byLibrary, &back); err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%s: %+v, %v", byLibrary, back, err)
		}
	})
}

// FuzzRequest checks that a body can add members to a frame and do nothing else.
func FuzzRequest(f *testing.F) {
	f.Add("get_state", "r", []byte(`{"key":"k"}`))
	f.Add("x", "", []byte(`{"type":"y"}`))
	f.Add("x", "", []byte("\v{}"))
	f.Add("x", "", []byte("\u0085"))
	f.Fuzz(func(t *testing.T, typ, reqID string, body []byte) {
		raw, err := (Request{Type: typ, ReqID: reqID, Body: body}).Encode()
		if err != nil {
			return
		}
		frame, err := Classify(raw)
		if err != nil || frame.Type != typ || frame.ReqID != reqID {
			t.Fatalf("%q %q %q: %s, %+v, %v", typ, reqID, body, raw, frame, err)
		}
		want := map[string]any{}
		if len(bytes.Trim(body, " \t\r\n")) > 0 {
			want = generic(t, body)
		}
		want["type"] = typ
		if reqID != "" {
			want["_reqId"] = reqID
		}
		if got := generic(t, raw); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %s", body, raw)
		}
	})
}
