package config

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
)

// describe says what a value is, without showing it.
func describe(v cty.Value) string {
	switch t := v.Type(); {
	case v.IsNull():
		return "null"
	case t == cty.String:
		return "a string"
	case t == cty.Number && v.IsKnown() && v.AsBigFloat().IsInf():
		return "infinite"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "a bool"
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		return "a list"
	case t.IsObjectType() || t.IsMapType():
		return "an object"
	default:
		return "a " + t.FriendlyName()
	}
}

// usable reports a value that can be looked into: no unknown part, which only broken input has.
func usable(v cty.Value) bool { return v != cty.NilVal && v.IsWhollyKnown() }

// toString takes a string alone: a number or bool in its place is more likely a slip than a wish.
func toString(v cty.Value) (string, bool) {
	if v.Type() != cty.String || v.IsNull() {
		return "", false
	}
	return v.AsString(), true
}

// toNumber takes a number, or a string that is one, since env gives strings.
func toNumber(v cty.Value) (*big.Float, bool) {
	switch {
	case v.IsNull():
		return nil, false
	case v.Type() == cty.Number:
		return v.AsBigFloat(), true
	case v.Type() == cty.String:
		n, err := cty.ParseNumberVal(strings.TrimSpace(v.AsString()))
		if err != nil {
			return nil, false
		}
		return n.AsBigFloat(), true
	}
	return nil, false
}

// toInt takes a whole number that an int64 holds.
func toInt(v cty.Value) (int64, bool) {
	f, ok := toNumber(v)
	if !ok || !f.IsInt() {
		return 0, false
	}
	n, acc := f.Int64()
	return n, acc == big.Exact
}

// toBool takes a bool, or the string "true" or "false", since env gives strings.
func toBool(v cty.Value) (bool, bool) {
	switch {
	case v.IsNull():
		return false, false
	case v.Type() == cty.Bool:
		return v.True(), true
	case v.Type() == cty.String:
		switch v.AsString() {
		case "true":
			return true, true
		case "false":
			return false, true
		}
	}
	return false, false
}

// toDuration takes a string with a unit, such as "250ms", not negative.
func toDuration(v cty.Value) (time.Duration, bool) {
	s, ok := toString(v)
	if !ok {
		return 0, false
	}
	d, err := time.ParseDuration(strings.TrimSpace(s))
	return d, err == nil && d >= 0
}

// sizeUnits are the units of a size, longest first where one ends in another.
var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// toBytes takes a whole number of bytes, or a string with a unit such as "1MiB" or "500 kB".
func toBytes(v cty.Value) (int64, bool) {
	if n, ok := toInt(v); ok {
		return n, n >= 0
	}
	s, ok := toString(v)
	if !ok {
		return 0, false
	}
	s = strings.TrimSpace(s)
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || n < 0 || n*u.factor >= math.MaxInt64 || n != n {
			return 0, false
		}
		return int64(math.Round(n * u.factor)), true
	}
	return 0, false
}

// elements are the parts of a list value in order.
func elements(v cty.Value) ([]cty.Value, bool) {
	t := v.Type()
	if v.IsNull() || !(t.IsTupleType() || t.IsListType() || t.IsSetType()) {
		return nil, false
	}
	out := make([]cty.Value, 0, v.LengthInt())
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out = append(out, e)
	}
	return out, true
}

// members are the parts of a map or object value in the order of their names.
func members(v cty.Value) (names []string, values []cty.Value, ok bool) {
	t := v.Type()
	if v.IsNull() || !(t.IsObjectType() || t.IsMapType()) {
		return nil, nil, false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		names = append(names, k.AsString())
		values = append(values, e)
	}
	return names, values, true
}

// mustBe is the sentence of a wrong type.
func mustBe(name, must string, v cty.Value) string {
	return fmt.Sprintf("%s must be %s, this is %s", name, must, describe(v))
}
