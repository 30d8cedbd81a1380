package sdk

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/meshhost/meshhost/sdk/internal/wire"
)

// structSpec is what a Go struct says about options.
type structSpec struct {
	fields []fieldSpec
}

// fieldSpec is one option: an attribute, or a nested block where block is set.
type fieldSpec struct {
	index    int
	name     string
	doc      string
	required bool
	fallback jsontext.Value // the default, nil if there is none
	typ      Type           // of an attribute
	block    *structSpec
	repeat   bool
}

var (
	optionPattern = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	bytesType     = reflect.TypeFor[Bytes]()
	pathType      = reflect.TypeFor[Path]()
	secretType    = reflect.TypeFor[Secret]()
	exprType      = reflect.TypeFor[Expr]()
)

// specOf reads the tags of a struct; outer are the structs that it is inside of.
func specOf(t reflect.Type, outer []reflect.Type) (*structSpec, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%v: a configuration is a struct", t)
	}
	if slices.Contains(outer, t) {
		return nil, fmt.Errorf("%v contains itself", t)
	}
	if len(outer) >= wire.MaxDepth {
		return nil, fmt.Errorf("%v nests deeper than %d", t, wire.MaxDepth)
	}
	spec := &structSpec{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("mesh")
		switch {
		case tag == "-" || !f.IsExported() && !tagged:
			continue
		case !f.IsExported():
			return nil, fmt.Errorf("field %s has the tag mesh but is not exported", f.Name)
		case !tagged:
			return nil, fmt.Errorf("field %s has no tag mesh; write `mesh:\"%s\"`, or `mesh:\"-\"` to leave it out", f.Name, strings.ToLower(f.Name))
		}
		field, err := fieldOf(f, tag, append(slices.Clone(outer), t))
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		if slices.ContainsFunc(spec.fields, func(o fieldSpec) bool { return o.name == field.name }) {
			return nil, fmt.Errorf("field %s: the name %q is there twice", f.Name, field.name)
		}
		field.index = i
		spec.fields = append(spec.fields, field)
	}
	return spec, nil
}

func fieldOf(f reflect.StructField, tag string, outer []reflect.Type) (fieldSpec, error) {
	name, options, _ := strings.Cut(tag, ",")
	field := fieldSpec{name: name, doc: f.Tag.Get("doc")}
	if !optionPattern.MatchString(name) {
		return field, fmt.Errorf("the name %q is not snake_case", name)
	}
	isBlock := false
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "":
		case "required":
			field.required = true
		case "block":
			isBlock = true
		default:
			return field, fmt.Errorf("the tag mesh has an unknown option %q; there are required and block", option)
		}
	}
	text, hasDefault := f.Tag.Lookup("default")
	if hasDefault && field.required {
		return field, errors.New("it is required and has a default; choose one")
	}
	if isBlock {
		if hasDefault {
			return field, errors.New("a block has no default; its attributes may")
		}
		return field, field.blockOf(f.Type, outer)
	}
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var err error
	if field.typ, err = typeOf(t, outer); err != nil {
		return field, err
	}
	if names := f.Tag.Get("variables"); names != "" {
		if field.typ.Name != TypeExpr {
			return field, errors.New("the tag variables is for sdk.Expr")
		}
		field.typ.Variables = strings.Split(names, ",")
	}
	if hasDefault {
		field.fallback, err = defaultOf(t, &field.typ, text)
	}
	return field, err
}

// blockOf sets the field up as a nested block.
func (field *fieldSpec) blockOf(t reflect.Type, outer []reflect.Type) error {
	switch t.Kind() {
	case reflect.Slice:
		field.repeat = true
		t = t.Elem()
	case reflect.Pointer:
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("a block is a struct, a pointer to one or a slice of them, not %v", t)
	}
	var err error
	field.block, err = specOf(t, outer)
	return err
}

// typeOf is the type of an attribute.
func typeOf(t reflect.Type, outer []reflect.Type) (Type, error) {
	switch t {
	case durationType:
		return Type{Name: TypeDuration}, nil
	case bytesType:
		return Type{Name: TypeBytes}, nil
	case pathType:
		return Type{Name: TypePath}, nil
	case secretType:
		return Type{Name: TypeSecret}, nil
	case exprType:
		return Type{Name: TypeExpr}, nil
	case timeType, rawType:
		return Type{}, fmt.Errorf("%v can't be an option", t)
	}
	switch t.Kind() {
	case reflect.String:
		return Type{Name: TypeString}, nil
	case reflect.Bool:
		return Type{Name: TypeBool}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		return Type{Name: TypeNumber}, nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return Type{}, errors.New("[]byte can't be an option; use a string")
		}
		elem, err := typeOf(t.Elem(), outer)
		return Type{Name: TypeList, Elem: &elem}, err
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return Type{}, fmt.Errorf("%v: keys of a map are strings", t)
		}
		elem, err := typeOf(t.Elem(), outer)
		return Type{Name: TypeMap, Elem: &elem}, err
	case reflect.Struct:
		spec, err := specOf(t, outer)
		if err != nil {
			return Type{}, err
		}
		s := spec.schema()
		if len(s.Blocks) > 0 {
			return Type{}, fmt.Errorf("%v: there are no blocks inside an attribute", t)
		}
		return Type{Name: TypeObject, Fields: s.Attributes}, nil
	default:
		return Type{}, fmt.Errorf("%v can't be an option", t)
	}
}

// schema is the spec as the host sees it.
func (s *structSpec) schema() Schema {
	var schema Schema
	for _, f := range s.fields {
		if f.block != nil {
			schema.Blocks = append(schema.Blocks, Block{
				Name:     f.name,
				Repeat:   f.repeat,
				Required: f.required,
				Doc:      f.doc,
				Schema:   f.block.schema(),
			})
			continue
		}
		schema.Attributes = append(schema.Attributes, Attribute{
			Name:     f.name,
			Type:     f.typ,
			Required: f.required,
			Default:  f.fallback,
			Doc:      f.doc,
		})
	}
	return schema
}

// defaultOf turns the text of the tag default into JSON that decodes.
func defaultOf(t reflect.Type, typ *Type, text string) (jsontext.Value, error) {
	var value jsontext.Value
	var err error
	switch typ.Name {
	case TypeString, TypePath, TypeSecret, TypeDuration:
		value, err = json.Marshal(text)
	case TypeExpr:
		value, err = json.Marshal(Expr{Source: text, Variables: typ.Variables})
	case TypeBytes:
		var n int64
		n, err = parseBytes(text)
		value = strconv.AppendInt(nil, n, 10)
	default:
		value = jsontext.Value(text)
		err = value.Compact() // and no more: a canonical number is a float64
	}
	if err != nil {
		return nil, fmt.Errorf("default %q: %w", text, err)
	}
	var diags Diagnostics
	decodeValue(value, t, reflect.New(t).Elem(), &decoding{diags: &diags})
	if diags.HasErrors() {
		return nil, fmt.Errorf("default %q: %s", text, diags[0].Detail)
	}
	return value, nil
}

var byteUnits = map[string]int64{
	"": 1, "B": 1,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// parseBytes reads "1048576", "1MiB" or "64 kB".
func parseBytes(text string) (int64, error) {
	end := len(text)
	for i, r := range text {
		if r < '0' || r > '9' {
			end = i
			break
		}
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	unit, ok := byteUnits[strings.TrimSpace(text[end:])]
	switch {
	case err != nil || !ok:
		return 0, errors.New(`a number of bytes is needed, such as 1048576 or "1MiB"`)
	case n > math.MaxInt64/unit:
		return 0, errors.New("that is too large")
	}
	return n * unit, nil
}
