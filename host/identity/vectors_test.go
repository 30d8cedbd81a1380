package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
	"golang.org/x/crypto/nacl/secretbox"
)

type vectors struct {
	Keys map[string]struct {
		Seed, Public, Secret string
		X25519Public         string `json:"x25519_public"`
		X25519Secret         string `json:"x25519_secret"`
	}
	Hello []struct {
		MeshID    string `json:"meshId"`
		MemberID  string `json:"memberId"`
		Timestamp int64
		Text      string
		Signature string
	}
	Attestation []struct {
		ExpiresAt int64 `json:"expiresAt"`
		Text      string
		Signature string
	}
	SessionHello []struct {
		MeshID    string `json:"meshId"`
		Timestamp int64
		Text      string
		Signature string
	} `json:"session_hello"`
	Box []struct {
		From, To, Plaintext, Nonce, Ciphertext string
	}
	Secretbox []struct {
		Key, Plaintext, Nonce, Ciphertext string
	}
	TopicSeal []struct {
		From, To, Nonce, Sealed string
		TopicKey                string `json:"topic_key"`
	} `json:"topic_seal"`
	Fingerprint []struct {
		Request struct {
			DestinationKind string  `json:"destination_kind"`
			DestinationRef  string  `json:"destination_ref"`
			ReplyToID       *string `json:"reply_to_id"`
			Priority        string
			Meta            json.RawMessage
			Body            string
		}
		SHA256 string
	}
	CanonicalJSON []struct{ Input, Canonical string } `json:"canonical_json"`
	InviteV1      []struct {
		Text, Token string
		Payload     struct{ Signature string }
	} `json:"invite_v1"`
	InviteV2 []struct{ Text, Signature string } `json:"invite_v2"`
}

func loadVectors(t testing.TB) (v vectors, keys map[string]*Key) {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	keys = map[string]*Key{}
	for name, k := range v.Keys {
		if keys[name], err = ParseSecret(k.Secret); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return v, keys
}

func TestVectorKeys(t *testing.T) {
	v, keys := loadVectors(t)
	if len(keys) != 4 {
		t.Fatalf("%d keys", len(keys))
	}
	for name, k := range v.Keys {
		seeded, err := ParseSecret("\n " + strings.ToUpper(k.Seed) + "\t")
		if err != nil || seeded.Public() != keys[name].Public() || seeded.hexSecret() != k.Secret {
			t.Errorf("%s: the seed gives another key (%v)", name, err)
		}
		if got := keys[name].Public().String(); got != k.Public {
			t.Errorf("%s: public %s, want %s", name, got, k.Public)
		}
		u, err := montgomery(keys[name].Public())
		if err != nil || hex.EncodeToString(u[:]) != k.X25519Public {
			t.Errorf("%s: X25519 public %x, %v", name, u, err)
		}
		if got := hex.EncodeToString(keys[name].s().scalar[:]); got != k.X25519Secret {
			t.Errorf("%s: the X25519 secret differs", name)
		}
	}
}

// checkSignature runs one vector and its negative cases: another key, each half of the signature changed, another text, no hex.
func checkSignature(t *testing.T, got, want string, check func(sig string) error, wrong ...func(sig string) error) {
	t.Helper()
	if got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
	for _, sig := range []string{want, strings.ToUpper(want)} {
		if err := check(sig); err != nil {
			t.Errorf("the vector's signature: %v", err)
		}
	}
	for _, at := range []int{0, 70} {
		bad := []byte(want)
		bad[at] ^= 1 // a neighbouring hex digit: '0'/'1' … 'e'/'d' aside, so check it is hex still
		if _, err := hex.DecodeString(string(bad)); err != nil {
			bad[at] = '0'
		}
		if err := check(string(bad)); !errors.Is(err, ErrBadSignature) {
			t.Errorf("a changed signature: %v, want ErrBadSignature", err)
		}
	}
	for i, w := range wrong {
		if err := w(want); !errors.Is(err, ErrBadSignature) {
			t.Errorf("wrong text or key %d: %v, want ErrBadSignature", i, err)
		}
	}
	for _, bad := range []string{"", want[:126], want + "00", "zz" + want[2:], want[:127]} {
		if err := check(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("signature %q: %v, want ErrMalformed", bad, err)
		}
	}
}

func TestVectorSignatures(t *testing.T) {
	v, keys := loadVectors(t)
	member, session, other := keys["member"], keys["session"], keys["recipient"].Public()
	mp, sp := member.Public(), session.Public()
	for _, h := range v.Hello {
		if text := helloText(h.MeshID, h.MemberID, mp, h.Timestamp); text != h.Text {
			t.Errorf("hello text %q, want %q", text, h.Text)
		}
		checkSignature(t, member.SignHello(h.MeshID, h.MemberID, h.Timestamp), h.Signature,
			func(s string) error { return VerifyHello(mp, h.MeshID, h.MemberID, h.Timestamp, s) },
			func(s string) error { return VerifyHello(other, h.MeshID, h.MemberID, h.Timestamp, s) },
			func(s string) error { return VerifyHello(mp, h.MeshID+"x", h.MemberID, h.Timestamp, s) },
			func(s string) error { return VerifyHello(mp, h.MeshID, "", h.Timestamp, s) },
			func(s string) error { return VerifyHello(mp, h.MeshID, h.MemberID, h.Timestamp+1, s) })
	}
	for _, a := range v.Attestation {
		if text := attestText(mp, sp, a.ExpiresAt); text != a.Text {
			t.Errorf("attestation text %q, want %q", text, a.Text)
		}
		checkSignature(t, member.Attest(sp, a.ExpiresAt), a.Signature,
			func(s string) error { return VerifyAttestation(mp, sp, a.ExpiresAt, s) },
			func(s string) error { return VerifyAttestation(sp, mp, a.ExpiresAt, s) },
			func(s string) error { return VerifyAttestation(mp, other, a.ExpiresAt, s) },
			func(s string) error { return VerifyAttestation(mp, sp, a.ExpiresAt-1, s) })
	}
	for _, h := range v.SessionHello {
		if text := sessionText(h.MeshID, mp, sp, h.Timestamp); text != h.Text {
			t.Errorf("session hello text %q, want %q", text, h.Text)
		}
		checkSignature(t, session.SignSessionHello(h.MeshID, mp, h.Timestamp), h.Signature,
			func(s string) error { return VerifySessionHello(sp, h.MeshID, mp, h.Timestamp, s) },
			func(s string) error { return VerifySessionHello(mp, h.MeshID, sp, h.Timestamp, s) },
			func(s string) error { return VerifySessionHello(sp, h.MeshID, other, h.Timestamp, s) },
			func(s string) error { return VerifySessionHello(sp, "", mp, h.Timestamp, s) })
	}
}

func TestVectorInvites(t *testing.T) {
	v, keys := loadVectors(t)
	owner := keys["owner"]
	for _, i := range v.InviteV1 {
		checkSignature(t, owner.sign(i.Text), i.Payload.Signature,
			func(s string) error { return verify(owner.Public(), i.Text, s) },
			func(s string) error { return verify(owner.Public(), i.Text+" ", s) })
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(i.Token, "="))
		if err != nil || !bytes.Contains(raw, []byte(i.Payload.Signature)) {
			t.Errorf("token doesn't hold the payload: %v", err)
		}
	}
	for _, i := range v.InviteV2 {
		checkSignature(t, owner.sign(i.Text), i.Signature,
			func(s string) error { return verify(owner.Public(), i.Text, s) },
			func(s string) error { return verify(keys["member"].Public(), i.Text, s) })
	}
}

func TestVectorBoxes(t *testing.T) {
	v, keys := loadVectors(t)
	for i, b := range v.Box {
		from, to := keys[b.From], keys[b.To]
		shared, err := from.shared(to.Public())
		if err != nil {
			t.Fatal(err)
		}
		nonce, err := decodeNonce(b.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		if got := b64.EncodeToString(box.SealAfterPrecomputation(nil, []byte(b.Plaintext), nonce, shared)); got != b.Ciphertext {
			t.Errorf("box %d seals to %s, want %s", i, got, b.Ciphertext)
		}
		for side, open := range map[string]func(string, string) ([]byte, error){
			"recipient": func(n, c string) ([]byte, error) { return to.Open(from.Public(), n, c) },
			"sender":    func(n, c string) ([]byte, error) { return from.Open(to.Public(), n, c) },
		} {
			if plain, err := open(b.Nonce, b.Ciphertext); err != nil || string(plain) != b.Plaintext {
				t.Errorf("box %d opened by the %s: %q, %v", i, side, plain, err)
			}
			raw, _ := b64.DecodeString(b.Ciphertext)
			for at := range min(len(raw), 20) {
				changed := bytes.Clone(raw)
				changed[at] ^= 0x80
				if plain, err := open(b.Nonce, b64.EncodeToString(changed)); !errors.Is(err, ErrOpen) {
					t.Fatalf("box %d with byte %d changed: %q, %v", i, at, plain, err)
				}
			}
			otherNonce := b64.EncodeToString(make([]byte, NonceSize))
			if _, err := open(otherNonce, b.Ciphertext); !errors.Is(err, ErrOpen) {
				t.Errorf("box %d with another nonce: %v", i, err)
			}
			for _, bad := range [][2]string{{"", b.Ciphertext}, {b.Nonce[:8], b.Ciphertext}, {b.Nonce, ""}, {b.Nonce, "AAAA"}, {b.Nonce, b.Ciphertext + "="}, {b.Nonce, "\n" + b.Ciphertext}, {b.Nonce, "!" + b.Ciphertext[1:]}} {
				if _, err := open(bad[0], bad[1]); !errors.Is(err, ErrMalformed) {
					t.Errorf("box %d, nonce %q ciphertext %.20q: %v, want ErrMalformed", i, bad[0], bad[1], err)
				}
			}
		}
		if _, err := keys["owner"].Open(from.Public(), b.Nonce, b.Ciphertext); !errors.Is(err, ErrOpen) {
			t.Errorf("box %d opened by a third party: %v", i, err)
		}
	}
}

func TestVectorSecretboxes(t *testing.T) {
	v, _ := loadVectors(t)
	for i, b := range v.Secretbox {
		raw, err := hex.DecodeString(b.Key)
		if err != nil {
			t.Fatal(err)
		}
		nonce, err := base64.StdEncoding.DecodeString(b.Nonce)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := base64.StdEncoding.DecodeString(b.Ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		at := newAtRest((*[32]byte)(raw)) // its sealed form is nonce ‖ secretbox
		if plain, err := at.Open(append(nonce, sealed...)); err != nil || string(plain) != b.Plaintext {
			t.Errorf("secretbox %d: %q, %v", i, plain, err)
		}
		sealed[0] ^= 1
		if _, err := at.Open(append(nonce, sealed...)); !errors.Is(err, ErrOpen) {
			t.Errorf("secretbox %d, changed: %v", i, err)
		}
		if got := secretbox.Seal(nil, []byte(b.Plaintext), (*[24]byte)(nonce), at.key()); !strings.HasSuffix(b.Ciphertext, base64.StdEncoding.EncodeToString(got)) {
			t.Errorf("secretbox %d seals to something else", i)
		}
	}
}

func TestVectorTopicSeals(t *testing.T) {
	v, keys := loadVectors(t)
	for i, s := range v.TopicSeal {
		sealed, err := base64.StdEncoding.DecodeString(s.Sealed)
		if err != nil {
			t.Fatal(err)
		}
		sender, err := montgomery(keys[s.From].Public())
		if err != nil || !bytes.Equal(sealed[:32], sender[:]) {
			t.Errorf("seal %d doesn't begin with the sender's X25519 key", i)
		}
		key, err := keys[s.To].Open(keys[s.From].Public(), s.Nonce, base64.StdEncoding.EncodeToString(sealed[32:]))
		if err != nil || hex.EncodeToString(key) != s.TopicKey {
			t.Errorf("seal %d: %v", i, err)
		}
	}
}

func TestVectorFingerprints(t *testing.T) {
	v, _ := loadVectors(t)
	if len(v.Fingerprint) != 12 {
		t.Fatalf("%d fingerprints", len(v.Fingerprint))
	}
	seen := map[[32]byte]bool{}
	for i, f := range v.Fingerprint {
		r := f.Request
		meta, err := CanonicalMeta(r.Meta)
		if err != nil {
			t.Fatal(err)
		}
		reply := ""
		if r.ReplyToID != nil {
			reply = *r.ReplyToID
		}
		sum := Fingerprint(r.DestinationKind, r.DestinationRef, reply, r.Priority, meta, []byte(r.Body))
		if hex.EncodeToString(sum[:]) != f.SHA256 {
			t.Errorf("fingerprint %d: %x, want %s", i, sum, f.SHA256)
		}
		for _, other := range [][32]byte{
			Fingerprint(r.DestinationKind+"x", r.DestinationRef, reply, r.Priority, meta, []byte(r.Body)),
			Fingerprint(r.DestinationKind, r.DestinationRef, reply+"x", r.Priority, meta, []byte(r.Body)),
			Fingerprint(r.DestinationKind, r.DestinationRef, reply, r.Priority, meta, append([]byte(r.Body), 'x')),
		} {
			if other == sum {
				t.Errorf("fingerprint %d: another request has the same", i)
			}
		}
		seen[sum] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d distinct fingerprints of 12", len(seen))
	}
}

func TestVectorCanonicalJSON(t *testing.T) {
	v, _ := loadVectors(t)
	for _, c := range v.CanonicalJSON {
		if got, err := CanonicalMeta([]byte(c.Input)); err != nil || got != c.Canonical {
			t.Errorf("%s: %s, %v; want %s", c.Input, got, err, c.Canonical)
		}
	}
}

// The vectors of PROTOCOL's appendix B: seeds of 32 equal bytes, 1 for the member, 2 for the session, 3 for the recipient.
func TestAppendixVectors(t *testing.T) {
	key := func(b byte) *Key {
		k, err := ParseSecret(hex.EncodeToString(bytes.Repeat([]byte{b}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	member, session, recipient := key(1), key(2), key(3)
	if got := member.Public().String(); got != "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c" {
		t.Errorf("member public %s", got)
	}
	if got, want := member.SignHello("MESH1", "MEMBER1", 1780000000000), "196c29ba423aa05b7ebed2ee234449bb6847d0f6d65d784bf04e3448bc53f5c5bdc0fc7eff5860090b4eae001878c0675442a6e120564e096118e5cf901af600"; got != want {
		t.Errorf("hello %s", got)
	}
	if got, want := member.Attest(session.Public(), 1780043200000), "ac96a7ba1735a497a9574ba92066f9b6767ef6620298cd9491bb05f6f2b2030407f80313ff36fe7fb9facd44e219b380cc2e11ca19408821a551ec888cb9b20b"; got != want {
		t.Errorf("attestation %s", got)
	}
	if got, want := session.SignSessionHello("MESH1", member.Public(), 1780000000000), "e2fe9f7de61e4545b4f9eb86c7fc99c4ffb3d6c8ef8631421365c8022603d628fbd9383f8bab40b73b3a4adcb147c7e26f096f83f4941538fae8762bb04c7704"; got != want {
		t.Errorf("session hello %s", got)
	}
	if plain, err := recipient.Open(session.Public(), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH", "DGIyutpMgiucj/jorRTFeNZjnn1DLX0bbi4qns1u"); err != nil || string(plain) != "hello mesh ✓" {
		t.Errorf("box: %q, %v", plain, err)
	}
	sum := Fingerprint("dm", "alice", "", "next", "", []byte("hello"))
	if got := hex.EncodeToString(sum[:]); got != "dc13f9d139b04e9886a09444fa269f46468843858070b13afee7889305c2aa09" {
		t.Errorf("fingerprint %s", got)
	}
	sum = Fingerprint("topic", "*", "r1", "now", `{"a":1,"b":[{"c":2,"d":3}]}`, []byte("héllo"))
	if got := hex.EncodeToString(sum[:]); got != "ea1311f0fbd1f628d98ff1c06e6035cff21cc5656732aaf0eb61610c97d8efb1" {
		t.Errorf("fingerprint %s", got)
	}
}
