package identity

import (
	"bytes"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/crypto/nacl/box"
	"golang.org/x/sys/unix"
)

func TestAKeyNeverPrints(t *testing.T) {
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Open   *Key
		Value  Key
		hidden *Key
		value  Key
		rest   *AtRest
	}
	h := holder{k, *k, k, *k, k.AtRest("outbox")}
	secrets := []string{k.hexSecret()[:64], string(k.s().private[:8]), fmt.Sprint(k.s().private[:8])[1:12], fmt.Sprint(k.s().scalar[:4])[1:8], fmt.Sprint(h.rest.key()[:4])[1:8]}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		for _, v := range []any{k, *k, h, &h, h.rest, []*Key{k}, []Key{*k}, map[string]Key{"a": *k}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "k", k, "v", *k, "h", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "k", k, "v", *k)
	for _, marshal := range []func(any) ([]byte, error){stdjson.Marshal, func(v any) ([]byte, error) { return json.Marshal(v) }} {
		for _, v := range []any{k, *k, map[string]any{"k": k}} {
			raw, err := marshal(v)
			if err != nil || !bytes.Contains(raw, []byte(redacted)) {
				t.Errorf("%s, %v", raw, err)
			}
			out.Write(raw)
		}
	}
	for _, s := range secrets {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(s)) {
			t.Errorf("a form of the key prints its secret: %.40q…", s)
		}
	}
	if _, err := ParseSecret(k.hexSecret()[:127] + "g"); err == nil || strings.Contains(err.Error(), k.hexSecret()[:8]) {
		t.Errorf("the error %v", err)
	}
}

func TestParseSecret(t *testing.T) {
	_, keys := loadVectors(t)
	good := keys["member"].hexSecret()
	mixed := good[:64] + keys["session"].hexSecret()[64:]
	for _, bad := range []string{"", "00", good[:126], good + "00", mixed, strings.Repeat("g", 64), good[:64] + " " + good[64:]} {
		if _, err := ParseSecret(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q…: %v, want ErrMalformed", bad, err)
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	_, keys := loadVectors(t)
	want := keys["member"].Public()
	if got, err := ParsePublicKey(want.String()); err != nil || got != want {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", want.String()[1:], strings.ToUpper(want.String()), want.String() + "0", " " + want.String()[1:]} {
		if got, err := ParsePublicKey(bad); !errors.Is(err, ErrMalformed) || got != (PublicKey{}) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "team.key")
	k, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteKeyFile(path, k); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	if got, err := LoadKeyFile(path); err != nil || got.Public() != k.Public() {
		t.Errorf("loaded %v, %v", got, err)
	}
	if err := WriteKeyFile(path, k); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwriting: %v, want ErrExist", err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o660, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeyFile(path); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path); err != nil {
		t.Errorf("mode 0400: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{link, fifo, dir} {
		if _, err := LoadKeyFile(bad); !errors.Is(err, ErrKeyFile) {
			t.Errorf("%s: %v, want ErrKeyFile", bad, err)
		}
	}
	if _, err := LoadKeyFile(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	for name, content := range map[string]string{"empty": "", "short": "abc", "long": k.hexSecret() + strings.Repeat(" ", maxKeyFile), "half": k.hexSecret()[:100]} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeyFile(p); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), p) || strings.Contains(err.Error(), k.hexSecret()[:16]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWeakPublicKeysAreRefused(t *testing.T) {
	_, keys := loadVectors(t)
	k := keys["member"]
	weak := []string{ // the points of low order, in canonical and other encodings, then y without an x, then a point of mixed order
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"0200000000000000000000000000000000000000000000000000000000000000",
	}
	for _, h := range append(weak, mixedOrder(t)) {
		raw, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		peer := PublicKey(raw)
		if _, _, err := k.Seal(peer, []byte("x")); !errors.Is(err, ErrWeakKey) {
			t.Errorf("sealing to %s: %v", h, err)
		}
		if _, err := k.Open(peer, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH", "DGIyutpMgiucj/jorRTFeNZjnn1DLX0bbi4qns1u"); !errors.Is(err, ErrWeakKey) {
			t.Errorf("opening from %s: %v", h, err)
		}
	}
}

func TestSealOpenPlain(t *testing.T) {
	_, keys := loadVectors(t)
	a, b := keys["member"], keys["recipient"]
	n1, c1, err := a.Seal(b.Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	n2, c2, _ := a.Seal(b.Public(), nil)
	if n1 == n2 || c1 == c2 {
		t.Error("two seals share a nonce")
	}
	if plain, err := b.Open(a.Public(), n1, c1); err != nil || len(plain) != 0 {
		t.Errorf("%q, %v", plain, err)
	}
	n, c, err := EncodePlain([]byte("to all ✓"))
	if err != nil || len(n) != 32 {
		t.Errorf("nonce %q, %v", n, err)
	}
	if plain, err := DecodePlain(c); err != nil || string(plain) != "to all ✓" {
		t.Errorf("%q, %v", plain, err)
	}
	if _, err := DecodePlain("a"); !errors.Is(err, ErrMalformed) {
		t.Errorf("%v", err)
	}
}

func TestBoxKeyCacheIsBounded(t *testing.T) {
	_, keys := loadVectors(t)
	s := &secret{hot: map[PublicKey]*[32]byte{}}
	for i := range 5 * boxCacheHalf {
		var p PublicKey
		p[0], p[1], p[2] = byte(i), byte(i>>8), byte(i>>16)
		s.remember(p, new([32]byte))
	}
	if n := len(s.hot) + len(s.old); n > 2*boxCacheHalf {
		t.Errorf("%d entries", n)
	}
	k, peer := keys["member"], keys["recipient"].Public()
	first, err := k.shared(peer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range boxCacheHalf {
		k.s().mu.Lock()
		k.s().remember(PublicKey{byte(i), byte(i >> 8), 1}, new([32]byte))
		k.s().mu.Unlock()
	}
	if again, _ := k.shared(peer); again != first {
		t.Error("a hot peer was forgotten after one generation")
	}
}

func TestAtRest(t *testing.T) {
	_, keys := loadVectors(t)
	outbox, journal, foreign := keys["member"].AtRest("outbox"), keys["member"].AtRest("journal"), keys["session"].AtRest("outbox")
	for _, plain := range []string{"", "hello", strings.Repeat("x", 50_000)} {
		sealed := outbox.Seal([]byte(plain))
		if len(sealed) != len(plain)+AtRestOverhead || (plain != "" && bytes.Contains(sealed, []byte(plain))) {
			t.Errorf("%d bytes for %d", len(sealed), len(plain))
		}
		if got, err := keys["member"].AtRest("outbox").Open(sealed); err != nil || string(got) != plain {
			t.Errorf("%.20q, %v", got, err)
		}
		for name, other := range map[string]*AtRest{"another purpose": journal, "another member": foreign} {
			if _, err := other.Open(sealed); !errors.Is(err, ErrOpen) {
				t.Errorf("opened for %s: %v", name, err)
			}
		}
		sealed[len(sealed)-1] ^= 1
		if _, err := outbox.Open(sealed); !errors.Is(err, ErrOpen) {
			t.Errorf("changed: %v", err)
		}
	}
	if _, err := outbox.Open(make([]byte, AtRestOverhead-1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("short: %v", err)
	}
}

func TestMetaThatJavaScriptWritesInAnotherWayIsRefused(t *testing.T) {
	for raw, want := range map[string]string{
		``: "", ` null `: "", `{}`: "{}", ` { "b" : 1 , "a" : "<&>\u2028" } `: "{\"a\":\"<&>\u2028\",\"b\":1}",
		`{"01":1,"-1":2,"4294967295":3,"1.5":4,"a1":5}`: `{"-1":2,"01":1,"1.5":4,"4294967295":3,"a1":5}`,
		`{"x":["1","__proto__"],"y":-0,"z":1.0}`:        `{"x":["1","__proto__"],"y":0,"z":1}`,
	} {
		if got, err := CanonicalMeta([]byte(raw)); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", raw, got, err, want)
		}
	}
	for _, bad := range []string{
		`{"10":1}`, `{"a":{"0":1}}`, `{"a":[{"4294967294":1}]}`, `{"\u0031":1}`, `{"__proto__":1}`, `{"a":{"\u005f_proto__":1}}`,
		`{"a":"\ud800"}`, `{"\udc00":1}`, `{"a":"\ud800x"}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `[1]`, `"x"`, `1`, `{"a":1}x`, `{"a":1}{}`, `{`, `{"a":1e999}`,
		strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100),
	} {
		if got, err := CanonicalMeta([]byte(bad)); !errors.Is(err, ErrMeta) {
			t.Errorf("%.60s: %s, %v; want ErrMeta", bad, got, err)
		}
	}
}

// FuzzBox: what one party seals both can open, a naive implementation agrees, and a changed byte never opens.
func FuzzBox(f *testing.F) {
	f.Add([]byte("hello"), byte(1), byte(2), uint(3))
	f.Add([]byte{}, byte(0), byte(0), uint(0))
	f.Fuzz(func(t *testing.T, plain []byte, a, b byte, at uint) {
		ka, _ := ParseSecret(hex.EncodeToString(bytes.Repeat([]byte{a}, 32)))
		kb, _ := ParseSecret(hex.EncodeToString(bytes.Repeat([]byte{b}, 32)))
		nonce64, sealed64, err := ka.Seal(kb.Public(), plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, open := range []func() ([]byte, error){
			func() ([]byte, error) { return kb.Open(ka.Public(), nonce64, sealed64) },
			func() ([]byte, error) { return ka.Open(kb.Public(), nonce64, sealed64) },
		} {
			if got, err := open(); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%q, %v", got, err)
			}
		}
		sealed, _ := b64.DecodeString(sealed64)
		nonce, _ := decodeNonce(nonce64)
		u, err := montgomery(ka.Public())
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := box.Open(nil, sealed, nonce, u, &kb.s().scalar); !ok || !bytes.Equal(got, plain) {
			t.Fatal("the library opens something else")
		}
		sealed[at%uint(len(sealed))] ^= 1
		if got, err := kb.Open(ka.Public(), nonce64, b64.EncodeToString(sealed)); !errors.Is(err, ErrOpen) {
			t.Fatalf("changed box: %q, %v", got, err)
		}
	})
}

// FuzzCanonicalMeta: the canonical form means the same to encoding/json, is a fixed point, and its order is UTF-16's.
func FuzzCanonicalMeta(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{"d":3,"c":2}]}`, `{"é":"ü","z":true,"a":null}`, `{"x":1.5,"y":1e+21}`, `{"\ud83d\ude00":1,"\uffff":2}`, `{"1":1}`, `null`, `{"a":-0,"b":[-1e-999]}`, "\u00a0{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := CanonicalMeta(raw)
		if err != nil {
			if !errors.Is(err, ErrMeta) {
				t.Fatal(err)
			}
			return
		}
		if got == "" {
			return
		}
		if again, err := CanonicalMeta([]byte(got)); err != nil || again != got {
			t.Fatalf("%s becomes %s, %v", got, again, err)
		}
		var a, b any
		if err := stdjson.Unmarshal(raw, &a); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if err := stdjson.Unmarshal([]byte(got), &b); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if !reflect.DeepEqual(a, b) { // 0 equals -0, which JavaScript writes as 0
			t.Fatalf("%q\nbecame %q", raw, got)
		}
		checkOrder(t, got)
	})
}

// checkOrder fails unless the names of every object ascend by their UTF-16 units.
func checkOrder(t *testing.T, canonical string) {
	t.Helper()
	dec := jsontext.NewDecoder(strings.NewReader(canonical))
	last := map[int][]uint16{} // by depth
	for {
		kind, n := dec.StackIndex(dec.StackDepth())
		depth, isName := dec.StackDepth(), kind == jsontext.KindBeginObject && n%2 == 0
		tok, err := dec.ReadToken()
		if err != nil {
			return // the whole of it was decoded before
		}
		if !isName || tok.Kind() != '"' {
			continue
		}
		name := utf16.Encode([]rune(tok.String()))
		if n > 0 && slices.Compare(last[depth], name) >= 0 {
			t.Fatalf("%q: the member %q stands too late", canonical, tok)
		}
		last[depth] = name
	}
}

// FuzzParse: only the one spelling of a public key parses, and secrets agree with their public halves.
func FuzzParse(f *testing.F) {
	f.Add("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
	f.Add(strings.Repeat("01", 32))
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePublicKey(s); err == nil && p.String() != s {
			t.Fatalf("%q parses to %s", s, p)
		}
		if k, err := ParseSecret(s); err == nil {
			again, err := ParseSecret(k.hexSecret())
			if err != nil || again.Public() != k.Public() || !strings.HasPrefix(k.hexSecret(), strings.ToLower(strings.TrimSpace(s))[:64]) {
				t.Fatalf("%v", err)
			}
		}
	})
}

func BenchmarkSealHotPeer(b *testing.B) {
	_, keys := loadVectors(b)
	k, peer, plain := keys["member"], keys["recipient"].Public(), make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := k.Seal(peer, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealNewPeer(b *testing.B) {
	_, keys := loadVectors(b)
	k, peer, plain := keys["member"], keys["recipient"].Public(), make([]byte, 200)
	for b.Loop() {
		clear(k.s().hot)
		if _, _, err := k.Seal(peer, plain); err != nil {
			b.Fatal(err)
		}
	}
}
