package sdk

import (
	lifecyclev1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/lifecycle/v1"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

// Describe is what the plugin says of itself.
func (p *Plugin) Describe() Description {
	d := Description{
		Name:       p.Name,
		Version:    p.Version,
		Doc:        p.Doc,
		SDKVersion: "go/" + Version,
		Protocol:   ProtocolVersion,
	}
	if p.Config != nil {
		d.Schema = p.Config.Schema()
	}
	if p.Outbox != nil {
		d.Kinds = append(d.Kinds, KindOutbox)
		d.Durable = p.Durable
	}
	if p.PushHandler != nil {
		d.Kinds = append(d.Kinds, KindPushHandler)
		d.Wants = p.Wants
	}
	if p.PeerFilter != nil {
		d.Kinds = append(d.Kinds, KindPeerFilter)
	}
	if f := p.Feature; f != nil {
		d.Kinds = append(d.Kinds, KindFeature)
		d.Methods = f.Methods
		d.DefaultMethod = f.Default
		d.Frames = f.Frames
		d.Watches = f.Watches
		d.OnConnect = f.OnConnect != nil
	}
	return d
}

func descriptionToProto(d Description) *lifecyclev1.DescribeResponse {
	res := &lifecyclev1.DescribeResponse{
		Name:          d.Name,
		Version:       d.Version,
		Doc:           d.Doc,
		SdkVersion:    d.SDKVersion,
		Protocol:      int32(d.Protocol),
		Durable:       d.Durable,
		Schema:        schemaToProto(d.Schema),
		DefaultMethod: d.DefaultMethod,
		Frames:        d.Frames,
		Watches:       d.Watches,
		OnConnect:     d.OnConnect,
	}
	for _, k := range d.Kinds {
		res.Kinds = append(res.Kinds, wire.Kinds.Number(string(k)))
	}
	for _, w := range d.Wants {
		res.Wants = append(res.Wants, wantToProto(w))
	}
	for i := range d.Methods {
		res.Methods = append(res.Methods, methodToProto(&d.Methods[i]))
	}
	return res
}

func wantToProto(w Want) *lifecyclev1.Want {
	res := &lifecyclev1.Want{Events: w.Events}
	for _, k := range w.Kinds {
		res.Kinds = append(res.Kinds, string(k))
	}
	return res
}

func methodToProto(m *Method) *lifecyclev1.Method {
	return &lifecyclev1.Method{
		Name:       m.Name,
		Doc:        m.Doc,
		ParamsJson: m.Params,
		ResultJson: m.Result,
		Cli:        cliToProto(m.CLI),
	}
}

func cliToProto(c CLI) *lifecyclev1.Cli {
	res := &lifecyclev1.Cli{
		Args:    c.Args,
		Print:   c.Print,
		Rows:    c.Rows,
		Columns: c.Columns,
		Schema:  c.Schema,
		Stream:  c.Stream,
		Hidden:  c.Hidden,
	}
	if f := c.Follow; f != nil {
		res.Follow = &lifecyclev1.Follow{Event: f.Event, Cursor: f.Cursor, Key: f.Key}
	}
	return res
}

func schemaToProto(s Schema) *lifecyclev1.Schema {
	res := &lifecyclev1.Schema{Attributes: attributesToProto(s.Attributes)}
	for _, b := range s.Blocks {
		res.Blocks = append(res.Blocks, &lifecyclev1.Block{
			Name:     b.Name,
			Repeat:   b.Repeat,
			Required: b.Required,
			Doc:      b.Doc,
			Schema:   schemaToProto(b.Schema),
		})
	}
	return res
}

func attributesToProto(as []Attribute) []*lifecyclev1.Attribute {
	var res []*lifecyclev1.Attribute
	for _, a := range as {
		res = append(res, &lifecyclev1.Attribute{
			Name:        a.Name,
			Type:        typeToProto(&a.Type),
			Required:    a.Required,
			DefaultJson: a.Default,
			Doc:         a.Doc,
		})
	}
	return res
}

func typeToProto(t *Type) *lifecyclev1.Type {
	if t == nil {
		return nil
	}
	return &lifecyclev1.Type{
		Name:      wire.TypeNames.Number(string(t.Name)),
		Elem:      typeToProto(t.Elem),
		Fields:    attributesToProto(t.Fields),
		Variables: t.Variables,
	}
}

func diagnosticsToProto(ds Diagnostics) []*lifecyclev1.Diagnostic {
	var res []*lifecyclev1.Diagnostic
	for _, d := range ds {
		severity := SeverityError
		if d.Severity == SeverityWarning {
			severity = SeverityWarning
		}
		res = append(res, &lifecyclev1.Diagnostic{
			Severity: wire.Severities.Number(string(severity)),
			Summary:  d.Summary,
			Detail:   d.Detail,
			Path:     d.Path,
		})
	}
	return res
}
