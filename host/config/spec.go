package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/meshhost/meshhost/sdk"
)

// maxSchemaDepth bounds how deep a plugin's schema may nest.
const maxSchemaDepth = 16

// secretMark is the cty mark of a value that is never printed.
type secretMark struct{}

// spec turns a plugin's schema into what hcldec decodes by. Values keep the type that the user gave them: conversion is
// [encoder]'s, which can then point at the part of a value that is wrong.
func spec(s sdk.Schema) hcldec.ObjectSpec {
	out := hcldec.ObjectSpec{}
	for _, a := range s.Attributes {
		switch {
		case a.Type.Name == sdk.TypeExpr:
			out[a.Name] = &hcldec.AttrSpec{Name: a.Name, Type: customdecode.ExpressionType}
		case holdsSecret(a.Type):
			out[a.Name] = &hcldec.TransformFuncSpec{
				Wrapped: &hcldec.AttrSpec{Name: a.Name, Type: cty.DynamicPseudoType},
				Func:    markSecret(),
			}
		default:
			out[a.Name] = &hcldec.AttrSpec{Name: a.Name, Type: cty.DynamicPseudoType}
		}
	}
	for _, b := range s.Blocks {
		if b.Repeat {
			out[b.Name] = &hcldec.BlockTupleSpec{TypeName: b.Name, Nested: spec(b.Schema)}
			continue
		}
		out[b.Name] = &hcldec.BlockSpec{TypeName: b.Name, Nested: spec(b.Schema)}
	}
	return out
}

// holdsSecret reports whether a value of this type has a secret in it.
func holdsSecret(t sdk.Type) bool {
	return t.Name == sdk.TypeSecret || t.Elem != nil && holdsSecret(*t.Elem) ||
		slices.ContainsFunc(t.Fields, func(f sdk.Attribute) bool { return holdsSecret(f.Type) })
}

// markSecret is a function that marks its argument.
func markSecret() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{
			Name: "value", Type: cty.DynamicPseudoType,
			AllowNull: true, AllowUnknown: true, AllowDynamicType: true, AllowMarked: true,
		}},
		Type: func(args []cty.Value) (cty.Type, error) { return args[0].Type(), nil },
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return args[0].Mark(secretMark{}), nil },
	})
}

// checkSchema says why a plugin's schema can't be used; it came from another process.
func checkSchema(s sdk.Schema, depth int) error {
	if depth > maxSchemaDepth {
		return fmt.Errorf("blocks nest deeper than %d levels", maxSchemaDepth)
	}
	seen := map[string]bool{}
	if err := checkAttributes(s.Attributes, seen, depth); err != nil {
		return err
	}
	for _, b := range s.Blocks {
		if !hclsyntax.ValidIdentifier(b.Name) || seen[b.Name] {
			return fmt.Errorf("block %q: the name is no identifier or there twice", b.Name)
		}
		seen[b.Name] = true
		if err := checkSchema(b.Schema, depth+1); err != nil {
			return fmt.Errorf("block %s: %w", b.Name, err)
		}
	}
	return nil
}

func checkAttributes(attrs []sdk.Attribute, seen map[string]bool, depth int) error {
	for _, a := range attrs {
		if !hclsyntax.ValidIdentifier(a.Name) || seen[a.Name] {
			return fmt.Errorf("option %q: the name is no identifier or there twice", a.Name)
		}
		seen[a.Name] = true
		if err := checkType(a.Type, true, depth); err != nil {
			return fmt.Errorf("option %s: %w", a.Name, err)
		}
	}
	return nil
}

func checkType(t sdk.Type, direct bool, depth int) error {
	if depth > maxSchemaDepth {
		return fmt.Errorf("types nest deeper than %d levels", maxSchemaDepth)
	}
	switch t.Name {
	case sdk.TypeString, sdk.TypeNumber, sdk.TypeBool, sdk.TypeDuration, sdk.TypeBytes, sdk.TypePath, sdk.TypeSecret:
		return nil
	case sdk.TypeExpr:
		if !direct {
			return fmt.Errorf("an expr can't be a part of another type")
		}
		return nil
	case sdk.TypeList, sdk.TypeMap:
		if t.Elem == nil {
			return fmt.Errorf("a %s needs the type of its elements", t.Name)
		}
		return checkType(*t.Elem, false, depth+1)
	case sdk.TypeObject:
		for _, f := range t.Fields {
			if f.Type.Name == sdk.TypeExpr {
				return fmt.Errorf("an expr can't be a part of another type")
			}
		}
		return checkAttributes(t.Fields, map[string]bool{}, depth+1)
	default:
		return fmt.Errorf("%q is no type", t.Name)
	}
}
