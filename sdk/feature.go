package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Feature is a set of methods. What it declares is the only place where they
// are described: the CLI verb, the HTTP route and the docs come from it.
type Feature struct {
	Methods []Method
	// Default names the method that the bare verb calls, such as "list".
	Default string
	// Frames are the frame types that the feature sends by Host.Request and
	// Host.Notify. The host refuses others.
	Frames []string
	// Watches are the types of unsolicited frames, such as "state_change",
	// that OnFrame gets.
	Watches []string
	// OnConnect is called after each hello_ack of an identity and, when the
	// plugin comes up, for each connection that is up already; it may hear of
	// one twice. May be nil.
	OnConnect func(ctx context.Context, c Connected) error
	// OnFrame gets watched frames in order. They are not repeated. May be nil.
	OnFrame func(ctx context.Context, frames []Frame) error
}

// Method is one method of a feature, made by NewMethod.
type Method struct {
	Name string `json:"name"`
	Doc  string `json:"doc,omitempty"`
	// Params and Result are JSON Schemas.
	Params jsontext.Value `json:"params,omitempty"`
	Result jsontext.Value `json:"result,omitempty"`
	CLI    CLI            `json:"cli,omitzero"`

	// call runs it and names are its parameters; NewMethod sets both.
	call  func(ctx context.Context, call Call) (jsontext.Value, error)
	names []string
}

// CLI says how a method looks on the command line.
type CLI struct {
	// Args are the parameters taken by position, in order. The last may be
	// absent unless the schema requires it. All others are flags -name.
	Args []string `json:"args,omitempty"`
	// Print is the field of the result that is printed alone, as text; for an
	// array of objects Rows names the field that holds it and Columns say what
	// the table shows.
	Print   string   `json:"print,omitempty"`
	Rows    string   `json:"rows,omitempty"`
	Columns []string `json:"columns,omitempty"`
	// Schema is the schema field of -json output without the version prefix,
	// such as "state_get/v1". Empty: FEATURE_METHOD/v1.
	Schema string `json:"schema,omitempty"`
	// Follow makes -follow possible: after the first answer the CLI calls
	// again whenever the feature emitted an event of kind Event, with the parameter
	// Cursor set to the field Key of the last row seen.
	Follow *Follow `json:"follow,omitempty"`
	// Stream makes the verb print the feature's events of this kind, as Host.Emit
	// takes it, one JSON object a line,
	// until interrupted; the method itself is called once, first.
	Stream string `json:"stream,omitempty"`
	// Hidden keeps the method out of the help.
	Hidden bool `json:"hidden,omitzero"`
}

// Follow is how a list is followed.
type Follow struct {
	Event  string `json:"event"`
	Cursor string `json:"cursor"`
	Key    string `json:"key"`
}

// Call is one call of a method.
type Call struct {
	Method string
	// Params is a JSON object; absent parameters are absent.
	Params jsontext.Value
	// Mesh is the mesh that the caller named, or the only one; empty when
	// there are several and none was named.
	Mesh string
	// Identity is the public key of the session that calls; empty: the member.
	Identity string
}

// NeedMesh is an ErrInvalid with Reason "mesh_required" where the call names no
// mesh and there are several.
func (c Call) NeedMesh() error {
	if c.Mesh != "" {
		return nil
	}
	return Errorf(CodeInvalid, "mesh_required", "%s needs a mesh, and several are attached", c.Method).
		WithNext("Name one with -mesh; meshhost status lists them.")
}

// FeatureCaller is the calling side of a feature.
type FeatureCaller interface {
	// Call runs one method and returns its result, a JSON object. Errors are
	// *Error values.
	Call(ctx context.Context, call Call) (jsontext.Value, error)
	OnConnect(ctx context.Context, c Connected) error
	OnFrame(ctx context.Context, frames []Frame) error
}

// NewMethod declares a method whose parameters are the struct P and whose
// result is the struct R. Field names come from `json` tags, descriptions from
// `doc` tags; a field of P without omitempty or omitzero is required. Unknown
// parameters are refused with ErrInvalid.
func NewMethod[P, R any](name, doc string, cli CLI, f func(ctx context.Context, call Call, params P) (R, error)) Method {
	return Method{
		Name:   name,
		Doc:    doc,
		Params: schemaOf[P](),
		Result: schemaOf[R](),
		CLI:    cli,
		names:  namesOf[P](),
		call: func(ctx context.Context, call Call) (jsontext.Value, error) {
			var params P
			if len(call.Params) > 0 {
				if err := json.Unmarshal(call.Params, &params, json.RejectUnknownMembers(true)); err != nil {
					return nil, Errorf(CodeInvalid, "bad_params", "%s: %s", name, paramWords(err))
				}
			}
			if err := missing[P](call.Params); err != nil {
				return nil, Errorf(CodeInvalid, "bad_params", "%s: %v", name, err)
			}
			res, err := f(ctx, call, params)
			if err != nil {
				return nil, err
			}
			out, err := json.Marshal(res)
			if err != nil {
				return nil, fmt.Errorf("%s: encode result: %w", name, err)
			}
			return out, nil
		},
	}
}

// paramWords says what is wrong with parameters without the names of Go's types.
func paramWords(err error) string {
	var se *json.SemanticError
	switch {
	case !errors.As(err, &se):
		return err.Error()
	case errors.Is(err, json.ErrUnknownName):
		return fmt.Sprintf("there is no parameter %q", se.JSONPointer.LastToken())
	case se.JSONPointer == "":
		return "the parameters are not a JSON object"
	default:
		return fmt.Sprintf("the parameter %q can't be a JSON %s", strings.TrimPrefix(string(se.JSONPointer), "/"), se.JSONKind)
	}
}

// Call runs a declared method; it is FeatureCaller's for a Feature in this
// process.
func (f *Feature) Call(ctx context.Context, call Call) (jsontext.Value, error) {
	for i := range f.Methods {
		if m := &f.Methods[i]; m.Name == call.Method {
			return m.call(ctx, call)
		}
	}
	return nil, Errorf(CodeNotFound, "no_method", "no method %q", call.Method)
}
