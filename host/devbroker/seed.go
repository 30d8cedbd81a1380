package devbroker

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/host/identity"
)

// Seed is the world a broker starts with. Its JSON form is the file of `meshhost devbroker -seed`.
type Seed struct {
	Meshes []SeedMesh `json:"meshes"`
}

// SeedMesh is one mesh of a Seed.
type SeedMesh struct {
	MeshID  string       `json:"mesh_id"`
	Slug    string       `json:"slug"`
	Members []SeedMember `json:"members"`
}

// SeedMember is one member of a SeedMesh. Keys are lowercase hex (PROTOCOL 2.2); the broker needs the public one only.
type SeedMember struct {
	MemberID    string `json:"member_id"`
	DisplayName string `json:"display_name"`
	PublicKey   string `json:"public_key"`
	SecretKey   string `json:"secret_key,omitempty"`
	Role        string `json:"role"` // "admin" or "member"
	Revoked     bool   `json:"revoked,omitempty"`
}

var lowerHex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// LoadSeed reads and checks a seed file.
func LoadSeed(path string) (Seed, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Seed{}, fmt.Errorf("devbroker: read seed: %w", err)
	}
	var s Seed
	if err := json.Unmarshal(raw, &s, json.RejectUnknownMembers(true)); err != nil {
		return Seed{}, fmt.Errorf("devbroker: seed %s: %w", path, err)
	}
	if err := s.check(); err != nil {
		return Seed{}, fmt.Errorf("devbroker: seed %s: %w", path, err)
	}
	return s, nil
}

// check refuses what the broker could not route by.
func (s Seed) check() error {
	if len(s.Meshes) == 0 {
		return errors.New(`no mesh in it; it needs {"meshes":[{"mesh_id","slug","members":[…]}]}`)
	}
	ids := map[string]bool{}
	for i, m := range s.Meshes {
		if m.MeshID == "" || ids[m.MeshID] {
			return fmt.Errorf("meshes[%d]: mesh_id %q is empty or used twice", i, m.MeshID)
		}
		ids[m.MeshID] = true
		members, keys := map[string]bool{}, map[string]bool{}
		for j, p := range m.Members {
			at := fmt.Sprintf("meshes[%d].members[%d]", i, j)
			if p.MemberID == "" || members[p.MemberID] {
				return fmt.Errorf("%s: member_id %q is empty or used twice", at, p.MemberID)
			}
			if !lowerHex64.MatchString(p.PublicKey) || keys[p.PublicKey] {
				return fmt.Errorf("%s: public_key is not 64 lowercase hex digits or used twice", at)
			}
			if p.Role != "" && p.Role != "admin" && p.Role != "member" {
				return fmt.Errorf("%s: role %q is neither \"admin\" nor \"member\"", at, p.Role)
			}
			members[p.MemberID], keys[p.PublicKey] = true, true
		}
	}
	return nil
}

// GenerateSeed makes a seed of one mesh with fresh ids and keys and one member per name. The first member is an admin.
func GenerateSeed(slug string, names ...string) Seed {
	m := SeedMesh{MeshID: newID(), Slug: slug}
	for i, name := range names {
		var seed [ed25519.SeedSize]byte
		_, _ = rand.Read(seed[:]) // never fails: crypto/rand ends the program instead
		key := ed25519.NewKeyFromSeed(seed[:])
		role := "member"
		if i == 0 {
			role = "admin"
		}
		m.Members = append(m.Members, SeedMember{
			MemberID: newID(), DisplayName: name, Role: role,
			PublicKey: hex.EncodeToString(key[ed25519.SeedSize:]), SecretKey: hex.EncodeToString(key),
		})
	}
	return Seed{Meshes: []SeedMesh{m}}
}

// NewSeed writes a fresh seed of one mesh to path, and beside it per member a NAME.key and a NAME.hcl with a ready `mesh`
// block for a broker on brokerURL, all 0600. It refuses to overwrite, and leaves nothing behind when it fails. The blocks are
// also written to w, if there is one.
func NewSeed(path string, members int, brokerURL string, w io.Writer) error {
	if members < 1 || members > 1000 {
		return fmt.Errorf("devbroker: new seed: members is %d; take 1 to 1000", members)
	}
	names := make([]string, members)
	for i := range names {
		names[i] = memberName(i)
	}
	written, err := writeSeed(path, GenerateSeed("dev", names...), brokerURL, w)
	if err == nil {
		return nil
	}
	errs := []error{fmt.Errorf("devbroker: new seed: %w", err)}
	for _, file := range written { // keys of a mesh that nobody has
		errs = append(errs, os.Remove(file))
	}
	return errors.Join(errs...)
}

// writeSeed returns the files that it made, also when it fails.
func writeSeed(path string, seed Seed, brokerURL string, w io.Writer) (written []string, err error) {
	raw, err := json.Marshal(seed, jsontext.WithIndent("  "))
	if err != nil {
		return nil, err
	}
	if err := writeNew(path, append(raw, '\n')); err != nil {
		return nil, err
	}
	written = append(written, path)
	dir := filepath.Dir(path)
	var blocks strings.Builder
	for _, m := range seed.Meshes[0].Members {
		key, err := identity.ParseSecret(m.SecretKey)
		if err != nil {
			return written, err
		}
		file := filepath.Join(dir, m.DisplayName+".key")
		if err := identity.WriteKeyFile(file, key); err != nil {
			return written, err
		}
		written = append(written, file)
		block, file := meshBlock(seed.Meshes[0], m, brokerURL), filepath.Join(dir, m.DisplayName+".hcl")
		if err := writeNew(file, []byte(block)); err != nil {
			return written, err
		}
		written = append(written, file)
		blocks.WriteString(block + "\n")
	}
	if w != nil {
		if _, err := io.WriteString(w, blocks.String()); err != nil {
			return written, fmt.Errorf("print mesh blocks: %w", err)
		}
	}
	return written, nil
}

// memberName is alice, bob, carol, dave, then member5, member6 …
func memberName(i int) string {
	if names := []string{"alice", "bob", "carol", "dave"}; i < len(names) {
		return names[i]
	}
	return "member" + strconv.Itoa(i+1)
}

// meshBlock is the `mesh` block of mesh.hcl for one member. The key file is named relative to the config file.
func meshBlock(m SeedMesh, p SeedMember, brokerURL string) string {
	return fmt.Sprintf(`mesh %q {
  broker_url      = %q
  mesh_id         = %q
  member_id       = %q
  secret_key_file = %q
  display_name    = %q
}
`, m.Slug, brokerURL, m.MeshID, p.MemberID, p.DisplayName+".key", p.DisplayName)
}

func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: name another file, or move this one away", path)
	}
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		return f.Close()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newID is an id as the broker makes them: 32 characters of [0-9A-Za-z].
func newID() string {
	var out [32]byte
	var raw [64]byte
	n := 0
	for n < len(out) {
		_, _ = rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
		for _, c := range raw {
			if c < 248 && n < len(out) { // 248 = 4 * 62: no bias
				out[n] = base62[c%62]
				n++
			}
		}
	}
	return string(out[:])
}
