package control

import (
	"context"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/sdk"
)

type featureList struct {
	Features []Feature `json:"features"`
}

func (s *Server) features(w http.ResponseWriter, r *http.Request) {
	list, err := s.opts.Features.Features(r.Context())
	if err != nil {
		writeProblem(w, err)
		return
	}
	reply(w, featureList{slices.Concat([]Feature{}, list)})
}

// featureCall is POST /v1/features/NAME/METHOD?mesh=; the body holds the
// parameters, an empty one none. The answer is the method's result as it is.
func (s *Server) featureCall(w http.ResponseWriter, r *http.Request) {
	buf := getBuffer()
	defer putBuffer(buf)
	if err := buf.read(r, bodyCall); err != nil {
		writeProblem(w, err)
		return
	}
	params := jsontext.Value(buf.b)
	if len(params) == 0 {
		params = jsontext.Value("{}")
	}
	if !params.IsValid() || params.Kind() != jsontext.KindBeginObject {
		writeProblem(w, &Problem{
			Status: http.StatusBadRequest, Code: "invalid_json", Message: "the body is not a JSON object",
			Next: "send the method's parameters as one JSON object",
		})
		return
	}
	res, err := s.call(r.Context(), r.PathValue("feature"), sdk.Call{
		Method: r.PathValue("method"), Params: params.Clone(), Mesh: r.URL.Query().Get("mesh"),
	})
	if err != nil {
		writeProblem(w, err)
		return
	}
	writeBytes(w, http.StatusOK, res)
}

// call runs a method and makes sure that the answer can be passed on. A refusal
// without a next step gets one, and one for want of a mesh names them all.
func (s *Server) call(ctx context.Context, feature string, c sdk.Call) (jsontext.Value, error) {
	res, err := s.opts.Features.Call(ctx, feature, c)
	if err != nil {
		p := *problemOf(err)
		if p.Next == "" && p.Status == http.StatusBadRequest {
			p.Next = "GET /v1/features has the parameters of each method, and so has -h on the command line"
		}
		if p.Code == "mesh_required" && len(p.Fields) == 0 {
			if names, err := s.meshNames(ctx); err == nil { // else the refusal itself says more
				p.Fields = []Field{{"attached", names}}
			}
		}
		return nil, &p
	}
	if !res.IsValid() || res.Kind() != jsontext.KindBeginObject {
		return nil, &Problem{
			Status: http.StatusBadGateway, Code: "bad_plugin_reply",
			Message: feature + " " + c.Method + ": the plugin's result is not a JSON object",
			Next:    "this is a defect of the plugin; its block is in GET /v1/features",
		}
	}
	return res, nil
}
