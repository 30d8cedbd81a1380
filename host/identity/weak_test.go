package identity

import (
	"encoding/hex"
	"testing"

	"filippo.io/edwards25519"
)

// mixedOrder returns a point of the curve outside the prime subgroup: the base point plus a point of order eight.
func mixedOrder(t *testing.T) string {
	t.Helper()
	raw, err := hex.DecodeString("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
	if err != nil {
		t.Fatal(err)
	}
	torsion, err := edwards25519.NewIdentityPoint().SetBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	sum := edwards25519.NewIdentityPoint().Add(edwards25519.NewGeneratorPoint(), torsion)
	return hex.EncodeToString(sum.Bytes())
}
