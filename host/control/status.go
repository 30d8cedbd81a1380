package control

import (
	"net/http"
	"os"
	"strconv"

	"github.com/meshhost/meshhost/sdk"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// apiFeatures are what a program may look for in GET /v1/version.
var apiFeatures = []string{"send", "outbox", "outbox_wait", "outbox_trace", "peers", "events", "features", "inbox", "state", "profile", "metrics", "reload"}

// VersionReply is the answer of GET /v1/version (PROTOCOL 10.3).
type VersionReply struct {
	DaemonVersion  string   `json:"daemon_version"`
	API            string   `json:"ipc_api"`
	Features       []string `json:"ipc_features"`
	SchemaVersion  int      `json:"schema_version"`
	PluginProtocol int      `json:"plugin_protocol"`
	SDKVersion     string   `json:"sdk_version"`
}

// APIVersion is the version of this API.
const APIVersion = "v1"

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, VersionReply{
		DaemonVersion: s.opts.Version, API: APIVersion, Features: apiFeatures, SchemaVersion: 1,
		PluginProtocol: sdk.ProtocolVersion, SDKVersion: sdk.Version,
	})
}

// Health is the answer of GET /v1/health: the state of each mesh by name, in
// the four words of PROTOCOL 10.3. A rejected mesh is closed there: nothing
// tries to open it; GET /v1/status says why.
type Health struct {
	OK      bool              `json:"ok"`
	PID     int               `json:"pid"`
	Brokers map[string]string `json:"brokers"`
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	st, err := s.opts.Overview.Status(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	h := Health{OK: true, PID: os.Getpid(), Brokers: make(map[string]string, len(st.Meshes))}
	for _, m := range st.Meshes {
		h.Brokers[m.Name] = m.State
		if m.State == MeshRejected {
			h.Brokers[m.Name] = MeshClosed
		}
	}
	reply(w, h)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.opts.Overview.Status(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, st)
}

func (s *Server) plugins(w http.ResponseWriter, r *http.Request) {
	list, err := s.opts.Plugins.Plugins(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, pluginList{list})
}

type pluginList struct {
	Plugins []PluginStatus `json:"plugins"`
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	limitAnswer(w)
	promhttp.HandlerFor(s.opts.Metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
}

// tooMany says that a bound is reached.
func tooMany(what string, limit int) error {
	return &Problem{
		Status: http.StatusServiceUnavailable, Code: "busy",
		Message: "there are " + strconv.Itoa(limit) + " " + what + " already", Next: "end one of them, or try again later",
		RetryAfter: retryBusy,
	}
}
