package wire

import "testing"

const (
	benchAck  = `{"type":"ack","id":"0198f3a2-1111-7000-8000-0123456789ab","messageId":"VsQI1JG7Pdthj4tzoGRXPcq2QYPlaXzm","queued":true}`
	benchPush = `{"type":"push","messageId":"VsQI1JG7Pdthj4tzoGRXPcq2QYPlaXzm","meshId":"hYcQrDNyUcVHScQxP5tNpYZDMMQ42WhH","senderPubkey":"b9a2205c61ff23ad4a24ace4bdc4dba1b90b69b389e89b0be684c7625c01e037","priority":"next","nonce":"7B6B1M/zjIlFfDI67r2fxVO0+fjMWqU3","ciphertext":"O1UT9IH5SR969Qpn02TiQGzcDPXeDJYQawO1UT9IH5SR969Qpn02TiQGzcDPXeDJYQawO1UT9IH5SR969Qpn02TiQGzcDPXeDJYQawO1UT9IH5SR969Qpn02TiQGzcDPXeDJYQawO1UT9IH5SR969Qpn02TiQGzcDPXeDJYQaw==","createdAt":"2026-11-22T19:28:01.133Z","client_message_id":"6316ad58-e95b-448d-ba06-d667ecb72cd5","request_fingerprint":"f381aa3d65e99264e81b6957b7b0894802b7975de36ecd7d1853014fc4042d97"}`
)

func BenchmarkClassifyAck(b *testing.B) {
	raw := []byte(benchAck)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Classify(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkClassifyPush(b *testing.B) {
	raw := []byte(benchPush)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Classify(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePush(b *testing.B) {
	raw := []byte(benchPush)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodePush(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendSend(b *testing.B) {
	s := Send{ID: "0198f3a2-1111-7000-8000-0123456789ab", ClientMessageID: "0198f3a2-1111-7000-8000-0123456789ab", TargetSpec: "af8869433821e184c5502275a60be6d0f968396418ab1c7a6d0bff26688fcc46", Priority: PriorityNext, Nonce: "7B6B1M/zjIlFfDI67r2fxVO0+fjMWqU3", Ciphertext: "O1UT9IH5SR969Qpn02TiQGzcDPXeDJYQaw=="}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendSend(buf, &s); err != nil {
			b.Fatal(err)
		}
	}
}
