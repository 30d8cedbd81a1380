package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/meshhost/meshhost/host/identity"
	"github.com/meshhost/meshhost/sdk"
)

var meshShape = shape{attrs: []attr{
	{"broker_url", `"wss://HOST/ws"`, "where the broker listens"},
	{"mesh_id", `"…"`, "the id of the mesh, as the broker gave it when this member joined"},
	{"member_id", `"…"`, "the id of this member, as the broker gave it when it joined"},
	{"secret_key_file", `"team.key"`, "the file with this member's secret key, mode 0600"},
	{"display_name", `"build box"`, "how others see this member"},
	{"outbox", `"sqlite"`, "the name of the outbox that sends for this mesh"},
}}

// namePattern is what labels and names look like: they become file names, URL paths and metric labels.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// keyPattern is what a secret key looks like where the name of its file should stand.
var keyPattern = regexp.MustCompile(`^\s*[0-9A-Fa-f]{64}([0-9A-Fa-f]{64})?\s*$`)

// goodName checks a label or a name.
func (r *report) goodName(what, name string, at hcl.Range) bool {
	if namePattern.MatchString(name) {
		return true
	}
	r.add(at, fmt.Sprintf("%s can't be %q", what, name), "", "Use 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first.")
	return false
}

// addMesh reads a mesh block.
func (r *report) addMesh(c *Config, b *hcl.Block) {
	m := &Mesh{Name: b.Labels[0], at: place{r.src, header(b)}}
	s := r.open(fmt.Sprintf("mesh %q", m.Name), b.Body, header(b), meshShape)
	if !r.goodName("a mesh's label", m.Name, b.LabelRanges[0]) {
		return
	}
	for _, other := range c.Meshes {
		if other.Name == m.Name {
			r.add(header(b), fmt.Sprintf("mesh %q is there twice", m.Name), fmt.Sprintf("The first one is at %s.", other.at), "Remove one of the two, or give it another label.")
			return
		}
	}
	m.BrokerURL = s.require("broker_url")
	if m.BrokerURL != "" {
		s.brokerURL(m.BrokerURL)
	}
	m.MeshID = s.require("mesh_id")
	m.MemberID = s.require("member_id")
	m.DisplayName = s.text("display_name")
	s.secretKey(m)
	s.outbox(c, m)
	for _, other := range c.Meshes {
		if m.MeshID != "" && other.MeshID == m.MeshID && other.MemberID == m.MemberID && other.BrokerURL == m.BrokerURL {
			r.add(header(b), fmt.Sprintf("mesh %q is the same member as mesh %q", m.Name, other.Name), fmt.Sprintf("That one is at %s.", other.at), "Remove one of the two: their connections would push each other out.")
		}
	}
	c.Meshes = append(c.Meshes, m)
}

// brokerURL checks the address of a broker: encrypted unless it stays on this machine.
func (s *section) brokerURL(raw string) {
	at := s.at("broker_url")
	const example = `Write it as "wss://HOST/ws".`
	if strings.Contains(raw, "@") { // a password may be in it, if the URL can be read or not
		s.r.src.hide(at)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil: // the error's text would repeat the URL
		s.r.add(at, "broker_url is not a URL", "", example)
	case u.User != nil:
		s.r.add(at, "broker_url holds a user or password", "", "Remove it: a member proves who it is by its key.")
	case u.Scheme == "http" || u.Scheme == "https":
		u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
		s.r.add(at, "broker_url must begin with wss://", "", fmt.Sprintf("Did you mean %q?", u.String()))
	case u.Scheme != "ws" && u.Scheme != "wss", u.Hostname() == "":
		s.r.add(at, "broker_url must begin with wss:// and name a host", "", example)
	case !usablePort(u.Port()):
		s.r.add(at, "broker_url has no usable port", "", "Use one from 1 to 65535, or leave it out.")
	case u.Fragment != "":
		s.r.add(at, "broker_url has a fragment", "", fmt.Sprintf("Remove #%s.", u.Fragment))
	case u.Scheme == "ws" && !loopback(u.Hostname()):
		u.Scheme = "wss"
		s.r.add(at, "broker_url would send everything unencrypted: ws:// is for this machine alone", "", fmt.Sprintf("Use wss://: %q.", u.String()))
	case !strings.HasSuffix(u.Path, "/ws") || u.RawQuery != "" || u.ForceQuery:
		// A proxy may know better: no error.
		s.r.warn(at, "broker_url does not end in /ws, the one path on which a claudemesh broker answers", "", example)
	}
}

// usablePort takes the port of a URL, which url.Parse has found to be digits; empty is the scheme's own.
func usablePort(port string) bool {
	n, err := strconv.Atoi(port)
	return port == "" || err == nil && n >= 1 && n <= 65535
}

func loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// secretKey loads the member's key file.
func (s *section) secretKey(m *Mesh) {
	given := s.require("secret_key_file")
	if given == "" {
		return
	}
	path, at := s.path("secret_key_file")
	m.SecretKeyFile = path
	shown := given // as the user would type it where meshhost runs
	if !filepath.IsAbs(given) {
		shown = filepath.Join(filepath.Dir(at.Filename), given)
	}
	info, err := os.Lstat(path)
	if err != nil && keyPattern.MatchString(given) {
		s.r.src.hide(at)
		s.r.add(at, "secret_key_file holds a key, not the name of a file", "", `Put the key into a file with mode 0600 and write its name, such as secret_key_file = "team.key". Take a new key if others have seen this file.`)
		return
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.r.add(at, fmt.Sprintf("there is no key file %s", shown), "", "Put the member's secret key there, 128 or 64 hex digits, and run chmod 600 on it.")
		return
	case err != nil:
		s.r.add(at, fmt.Sprintf("key file %s can't be read: %s", shown, reason(err)), "", "Check the path and its permissions.")
		return
	}
	if mode := info.Mode() & fs.ModePerm; info.Mode().IsRegular() && mode&0o077 != 0 {
		s.r.add(at, fmt.Sprintf("key file %s has mode %04o: others could read the secret key", shown, mode), "", "Run: chmod 600 "+shown)
		return
	}
	m.Key, err = identity.LoadKeyFile(path)
	if err != nil {
		next := "Put the member's secret key there, 128 or 64 hex digits, in a file of your own with mode 0600."
		s.r.add(at, fmt.Sprintf("key file %s is not usable", shown), strings.ReplaceAll(err.Error(), path, shown)+".", next)
	}
}

// outbox finds the one outbox of a mesh.
func (s *section) outbox(c *Config, m *Mesh) {
	m.Outbox = s.text("outbox")
	var names []string
	for _, u := range c.Of(sdk.KindOutbox) {
		names = append(names, u.Name)
	}
	known := strings.Join(names, ", ")
	switch {
	case len(names) == 0: // reported once for the whole configuration, or the outbox block itself is broken
	case m.Outbox == "" && len(names) == 1:
		m.Outbox = names[0]
	case m.Outbox == "":
		if !s.guessed["outbox"] {
			s.r.add(s.header, fmt.Sprintf("%s doesn't say which outbox it uses", s.title), fmt.Sprintf("There are several: %s.", known), fmt.Sprintf("Add outbox = %q to this block.", names[0]))
		}
	case !slices.Contains(names, m.Outbox):
		s.r.add(s.at("outbox"), fmt.Sprintf("there is no outbox %q", m.Outbox), "", meant(m.Outbox, names, fmt.Sprintf("Use one of: %s.", known)))
	}
}
