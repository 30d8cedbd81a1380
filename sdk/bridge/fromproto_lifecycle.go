package bridge

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"
)

// descriptionFromProto reads a description and checks it, so that whoever gets
// one need not.
func descriptionFromProto(p *lifecyclev1.DescribeResponse) (sdk.Description, error) {
	d := sdk.Description{
		Name:          p.GetName(),
		Version:       p.GetVersion(),
		Doc:           p.GetDoc(),
		SDKVersion:    p.GetSdkVersion(),
		Protocol:      int(p.GetProtocol()),
		Durable:       p.GetDurable(),
		DefaultMethod: p.GetDefaultMethod(),
		Frames:        p.GetFrames(),
		Watches:       p.GetWatches(),
		OnConnect:     p.GetOnConnect(),
	}
	if d.Name == "" {
		return d, errors.New("it has no name")
	}
	var err error
	if d.Kinds, err = kindsFromProto(p.GetKinds()); err != nil {
		return d, err
	}
	if d.Schema, err = schemaFromProto(p.GetSchema(), 0); err != nil {
		return d, fmt.Errorf("config schema: %w", err)
	}
	for i, w := range p.GetWants() {
		want, err := wantFromProto(w)
		if err != nil {
			return d, fmt.Errorf("want %d: %w", i, err)
		}
		d.Wants = append(d.Wants, want)
	}
	if d.Methods, err = methodsFromProto(p.GetMethods()); err != nil {
		return d, err
	}
	if d.DefaultMethod != "" && !slices.ContainsFunc(d.Methods, func(m sdk.Method) bool { return m.Name == d.DefaultMethod }) {
		return d, fmt.Errorf("its default method %q is none of its methods", d.DefaultMethod)
	}
	return d, nil
}

func kindsFromProto(from []lifecyclev1.Kind) ([]sdk.Kind, error) {
	if len(from) == 0 {
		return nil, errors.New("it is of no kind")
	}
	kinds := make([]sdk.Kind, len(from))
	for i, n := range from {
		word, err := wire.Kinds.Word(n)
		if err != nil {
			return nil, err
		}
		if slices.Contains(kinds[:i], sdk.Kind(word)) {
			return nil, fmt.Errorf("kind %s is there twice", word)
		}
		kinds[i] = sdk.Kind(word)
	}
	return kinds, nil
}

func wantFromProto(p *lifecyclev1.Want) (sdk.Want, error) {
	w := sdk.Want{Events: p.GetEvents()}
	for _, k := range p.GetKinds() {
		if wire.PushKinds.Number(k) == 0 {
			return w, fmt.Errorf("unknown kind of push %q", k)
		}
		w.Kinds = append(w.Kinds, sdk.PushKind(k))
	}
	return w, nil
}

func methodsFromProto(from []*lifecyclev1.Method) ([]sdk.Method, error) {
	var methods []sdk.Method
	for i, p := range from {
		m := sdk.Method{
			Name:   p.GetName(),
			Doc:    p.GetDoc(),
			Params: p.GetParamsJson(),
			Result: p.GetResultJson(),
			CLI:    cliFromProto(p.GetCli()),
		}
		switch {
		case m.Name == "":
			return nil, fmt.Errorf("method %d has no name", i)
		case slices.ContainsFunc(methods, func(o sdk.Method) bool { return o.Name == m.Name }):
			return nil, fmt.Errorf("method %q is there twice", m.Name)
		case len(m.Params) > 0 && !isObject(m.Params):
			return nil, fmt.Errorf("method %q: its params are not a JSON Schema", m.Name)
		case len(m.Result) > 0 && !isObject(m.Result):
			return nil, fmt.Errorf("method %q: its result is not a JSON Schema", m.Name)
		}
		methods = append(methods, m)
	}
	return methods, nil
}

func cliFromProto(p *lifecyclev1.Cli) sdk.CLI {
	c := sdk.CLI{
		Args:    p.GetArgs(),
		Print:   p.GetPrint(),
		Rows:    p.GetRows(),
		Columns: p.GetColumns(),
		Schema:  p.GetSchema(),
		Stream:  p.GetStream(),
		Hidden:  p.GetHidden(),
	}
	if f := p.GetFollow(); f != nil {
		c.Follow = &sdk.Follow{Event: f.GetEvent(), Cursor: f.GetCursor(), Key: f.GetKey()}
	}
	return c
}

// schemaFromProto reads a schema; depth guards against one that nests without
// end.
func schemaFromProto(p *lifecyclev1.Schema, depth int) (sdk.Schema, error) {
	if depth > wire.MaxDepth {
		return sdk.Schema{}, fmt.Errorf("it nests deeper than %d", wire.MaxDepth)
	}
	attributes, err := attributesFromProto(p.GetAttributes(), depth)
	if err != nil {
		return sdk.Schema{}, err
	}
	s := sdk.Schema{Attributes: attributes}
	for i, b := range p.GetBlocks() {
		name := b.GetName()
		taken := slices.ContainsFunc(s.Attributes, func(a sdk.Attribute) bool { return a.Name == name }) ||
			slices.ContainsFunc(s.Blocks, func(b sdk.Block) bool { return b.Name == name })
		switch {
		case name == "":
			return s, fmt.Errorf("block %d has no name", i)
		case taken:
			return s, fmt.Errorf("%q is there twice", name)
		}
		inner, err := schemaFromProto(b.GetSchema(), depth+1)
		if err != nil {
			return s, fmt.Errorf("block %q: %w", name, err)
		}
		s.Blocks = append(s.Blocks, sdk.Block{
			Name:     name,
			Repeat:   b.GetRepeat(),
			Required: b.GetRequired(),
			Doc:      b.GetDoc(),
			Schema:   inner,
		})
	}
	return s, nil
}

func attributesFromProto(from []*lifecyclev1.Attribute, depth int) ([]sdk.Attribute, error) {
	var attributes []sdk.Attribute
	for i, p := range from {
		a := sdk.Attribute{
			Name:     p.GetName(),
			Required: p.GetRequired(),
			Default:  p.GetDefaultJson(),
			Doc:      p.GetDoc(),
		}
		var err error
		switch {
		case a.Name == "":
			return nil, fmt.Errorf("attribute %d has no name", i)
		case slices.ContainsFunc(attributes, func(o sdk.Attribute) bool { return o.Name == a.Name }):
			return nil, fmt.Errorf("%q is there twice", a.Name)
		case len(a.Default) > 0 && !jsontext.Value(a.Default).IsValid():
			return nil, fmt.Errorf("%q: its default is not JSON", a.Name)
		}
		if a.Type, err = typeFromProto(p.GetType(), depth+1); err != nil {
			return nil, fmt.Errorf("%q: %w", a.Name, err)
		}
		attributes = append(attributes, a)
	}
	return attributes, nil
}

func typeFromProto(p *lifecyclev1.Type, depth int) (sdk.Type, error) {
	if depth > wire.MaxDepth {
		return sdk.Type{}, fmt.Errorf("it nests deeper than %d", wire.MaxDepth)
	}
	word, err := wire.TypeNames.Word(p.GetName())
	if err != nil {
		return sdk.Type{}, err
	}
	t := sdk.Type{Name: sdk.TypeName(word), Variables: p.GetVariables()}
	switch t.Name {
	case sdk.TypeList, sdk.TypeMap:
		if p.GetElem() == nil {
			return t, fmt.Errorf("a %s without the type of its elements", word)
		}
		elem, err := typeFromProto(p.GetElem(), depth+1)
		if err != nil {
			return t, err
		}
		t.Elem = &elem
	case sdk.TypeObject:
		t.Fields, err = attributesFromProto(p.GetFields(), depth)
	}
	return t, err
}

// Bounds of what a plugin says of one configuration; it goes into logs.
const (
	maxDiagnostics = 1000
	maxPath        = 64 // steps
)

func diagnosticsFromProto(call string, from []*lifecyclev1.Diagnostic) (sdk.Diagnostics, error) {
	var diags sdk.Diagnostics
	more := sdk.Diagnostic{Severity: sdk.SeverityWarning}
	for i, p := range from {
		severity, err := wire.Severities.Word(p.GetSeverity())
		if err != nil {
			return nil, fault(call, "diagnostic %d: %v", i, err)
		}
		if p.GetSummary() == "" {
			return nil, fault(call, "diagnostic %d has no summary", i)
		}
		if i >= maxDiagnostics {
			if severity == string(sdk.SeverityError) { // one left out must not make the whole look right
				more.Severity = sdk.SeverityError
			}
			continue
		}
		d := sdk.Diagnostic{Severity: sdk.Severity(severity), Summary: wire.Clip(p.GetSummary()), Detail: wire.Clip(p.GetDetail())}
		for _, step := range p.GetPath()[:min(len(p.GetPath()), maxPath)] {
			d.Path = append(d.Path, wire.Clip(step))
		}
		diags = append(diags, d)
	}
	if n := len(from) - maxDiagnostics; n > 0 {
		more.Summary = fmt.Sprintf("The plugin has %d more to say.", n)
		more.Detail = "Correct what is shown first."
		diags = append(diags, more)
	}
	return diags, nil
}
