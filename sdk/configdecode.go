package sdk

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decoding is the place where a decoder stands, and where its findings go.
type decoding struct {
	diags   *Diagnostics
	path    []string
	dataDir string // relative paths start here; "": they stay as they are
	// absent is true inside of a block that is not written: nothing is required
	// there, but defaults count.
	absent bool
}

func (d *decoding) at(step string) *decoding {
	inner := *d
	inner.path = append(slices.Clone(d.path), step)
	return &inner
}

func (d *decoding) invalid(summary, format string, args ...any) {
	*d.diags = append(*d.diags, Invalid(d.path, summary, fmt.Sprintf(format, args...)))
}

func (d *decoding) wrongType(want string, got jsontext.Value) {
	d.invalid("Wrong type of value.", "It must be %s, not %s.", want, kindWord(got.Kind()))
}

// decodeWhole reads the body of a config block into v.
func (s *structSpec) decodeWhole(config jsontext.Value, v reflect.Value, dataDir string) Diagnostics {
	var diags Diagnostics
	s.decode(config, v, &decoding{diags: &diags, dataDir: dataDir})
	return diags
}

// decode reads an object; null in place of a value counts as not written.
func (s *structSpec) decode(object jsontext.Value, v reflect.Value, d *decoding) {
	members, err := objectMembers(object)
	if err != nil {
		d.invalid("Not an object.", "%v.", err)
		return
	}
	written := make(map[string]jsontext.Value, len(members))
	for _, m := range members {
		if !slices.ContainsFunc(s.fields, func(f fieldSpec) bool { return f.name == m.name }) {
			d.at(m.name).invalid("Unknown option.", "%s", s.known())
			continue
		}
		if m.value.Kind() != 'n' {
			written[m.name] = m.value
		}
	}
	for i := range s.fields {
		f := &s.fields[i]
		value, ok := written[f.name]
		switch {
		case ok:
		case f.required && !d.absent:
			d.invalid("Missing option.", "%q is required. Write it.", f.name)
			continue
		case f.fallback != nil:
			value = f.fallback
		}
		f.decode(value, v.Field(f.index), d.at(f.name))
	}
}

// known lists the options, for somebody who wrote another.
func (s *structSpec) known() string {
	if len(s.fields) == 0 {
		return "There are no options here. Remove it."
	}
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.name
	}
	return "Known here: " + strings.Join(names, ", ") + "."
}

// decode reads one option; value is nil where it is not written.
func (f *fieldSpec) decode(value jsontext.Value, v reflect.Value, d *decoding) {
	switch {
	case f.block == nil:
		if value != nil {
			decodeValue(value, v.Type(), v, d)
		}
	case f.repeat:
		if value != nil {
			f.decodeRepeated(value, v, d)
		}
	case v.Kind() == reflect.Pointer:
		if value != nil {
			v.Set(reflect.New(v.Type().Elem()))
			f.block.decode(value, v.Elem(), d)
		}
	case value == nil:
		d.absent = true
		f.block.decode(nil, v, d)
	default:
		d.absent = false
		f.block.decode(value, v, d)
	}
}

func (f *fieldSpec) decodeRepeated(value jsontext.Value, v reflect.Value, d *decoding) {
	elements, err := arrayElements(value)
	if err != nil {
		d.invalid("Wrong type of value.", "%v.", err)
		return
	}
	if f.required && len(elements) == 0 {
		d.invalid("Missing block.", "At least one block %q is required. Write it.", f.name)
	}
	v.Set(reflect.MakeSlice(v.Type(), len(elements), len(elements)))
	for i, e := range elements {
		inner := d.at(strconv.Itoa(i))
		inner.absent = false
		f.block.decode(e, v.Index(i), inner)
	}
}

// decodeValue reads the value of an attribute.
func decodeValue(value jsontext.Value, t reflect.Type, v reflect.Value, d *decoding) {
	if t.Kind() == reflect.Pointer {
		v.Set(reflect.New(t.Elem()))
		decodeValue(value, t.Elem(), v.Elem(), d)
		return
	}
	switch t {
	case durationType:
		decodeDuration(value, v, d)
		return
	case pathType:
		if text, ok := decodeString(value, d); ok {
			if d.dataDir != "" && text != "" && !filepath.IsAbs(text) {
				text = filepath.Join(d.dataDir, text)
			}
			v.SetString(text)
		}
		return
	case secretType:
		if text, ok := decodeString(value, d); ok {
			v.Set(reflect.ValueOf(NewSecret(text)))
		}
		return
	case exprType:
		decodeExpr(value, v, d)
		return
	}
	switch t.Kind() {
	case reflect.String:
		if text, ok := decodeString(value, d); ok {
			v.SetString(text)
		}
	case reflect.Bool:
		if k := value.Kind(); k != 't' && k != 'f' {
			d.wrongType("true or false", value)
			return
		}
		v.SetBool(value.Kind() == 't')
	case reflect.Slice:
		decodeList(value, t, v, d)
	case reflect.Map:
		decodeMap(value, t, v, d)
	case reflect.Struct:
		// specOf of this type was made before, or no value would come here.
		if spec, err := specOf(t, nil); err == nil {
			spec.decode(value, v, d)
		}
	default:
		decodeNumber(value, t, v, d)
	}
}

func decodeString(value jsontext.Value, d *decoding) (string, bool) {
	if value.Kind() != '"' {
		d.wrongType("a string", value)
		return "", false
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil {
		d.invalid("Not a string.", "The text is not valid.")
		return "", false
	}
	return text, true
}

func decodeDuration(value jsontext.Value, v reflect.Value, d *decoding) {
	text, ok := decodeString(value, d)
	if !ok {
		return
	}
	dur, err := time.ParseDuration(text)
	if err != nil {
		d.invalid("Not a duration.", `Write it as "250ms", "5s" or "1h30m".`)
		return
	}
	v.SetInt(int64(dur))
}

func decodeNumber(value jsontext.Value, t reflect.Type, v reflect.Value, d *decoding) {
	if value.Kind() != '0' {
		d.wrongType("a number", value)
		return
	}
	text := string(value)
	var err error
	switch {
	case v.CanInt():
		var n int64
		if n, err = strconv.ParseInt(text, 10, t.Bits()); err == nil {
			v.SetInt(n)
		}
	case v.CanUint():
		var n uint64
		if n, err = strconv.ParseUint(text, 10, t.Bits()); err == nil {
			v.SetUint(n)
		}
	default:
		var n float64
		if n, err = strconv.ParseFloat(text, t.Bits()); err == nil {
			v.SetFloat(n)
		}
	}
	if err == nil {
		return
	}
	switch {
	case v.CanUint():
		d.invalid("Number out of range.", "It must be a whole number from 0 of at most %d bits.", t.Bits())
	case v.CanInt():
		d.invalid("Number out of range.", "It must be a whole number of at most %d bits.", t.Bits())
	default:
		d.invalid("Number out of range.", "It is too large.")
	}
}

func decodeList(value jsontext.Value, t reflect.Type, v reflect.Value, d *decoding) {
	if value.Kind() != '[' {
		d.wrongType("a list", value)
		return
	}
	elements, err := arrayElements(value)
	if err != nil {
		d.invalid("Not a list.", "%v.", err)
		return
	}
	v.Set(reflect.MakeSlice(t, len(elements), len(elements)))
	for i, e := range elements {
		decodeValue(e, t.Elem(), v.Index(i), d.at(strconv.Itoa(i)))
	}
}

func decodeMap(value jsontext.Value, t reflect.Type, v reflect.Value, d *decoding) {
	if value.Kind() != '{' {
		d.wrongType("a map", value)
		return
	}
	members, err := objectMembers(value)
	if err != nil {
		d.invalid("Not a map.", "%v.", err)
		return
	}
	v.Set(reflect.MakeMapWithSize(t, len(members)))
	for _, m := range members {
		elem := reflect.New(t.Elem()).Elem()
		decodeValue(m.value, t.Elem(), elem, d.at(m.name))
		v.SetMapIndex(reflect.ValueOf(m.name).Convert(t.Key()), elem)
	}
}

func decodeExpr(value jsontext.Value, v reflect.Value, d *decoding) {
	if value.Kind() != '{' {
		d.wrongType("an expression", value)
		return
	}
	var e Expr
	if err := json.Unmarshal(value, &e, json.RejectUnknownMembers(true)); err != nil || e.Source == "" {
		d.invalid("Not an expression.", "It must have a source.")
		return
	}
	v.Set(reflect.ValueOf(e))
}
