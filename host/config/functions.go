package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// functionNames are the functions that an expression may call.
var functionNames = []string{"env", "file", "hostname"}

// funcError is a failed call in the user's words.
type funcError struct{ summary, next string }

func (e *funcError) Error() string { return e.summary }

func asFuncError(err error) *funcError {
	var fe *funcError
	if errors.As(err, &fe) {
		return fe
	}
	return nil
}

// scope is what expressions of a file see: no variables, three functions, relative paths starting at dir.
func scope(dir string) *hcl.EvalContext {
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"env":      envFunction(),
		"file":     fileFunction(dir),
		"hostname": hostnameFunction(),
	}}
}

// envFunction is env("NAME") or env("NAME", "default"); an empty variable is set.
func envFunction() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := args[0].AsString()
			if len(args) > 2 {
				return cty.NilVal, &funcError{"env takes a name and one default", fmt.Sprintf("Write env(%q, \"DEFAULT\").", name)}
			}
			if v, ok := os.LookupEnv(name); ok {
				if !utf8.ValidString(v) {
					return cty.NilVal, &funcError{fmt.Sprintf("the environment variable %s is not UTF-8", name), "Set it to a text."}
				}
				return cty.StringVal(v), nil
			}
			if len(args) == 2 {
				return args[1], nil
			}
			return cty.NilVal, &funcError{
				fmt.Sprintf("the environment variable %s is not set", name),
				fmt.Sprintf("Set it, or give a default: env(%q, \"DEFAULT\").", name),
			}
		},
	})
}

// fileFunction is file("PATH"): the text of a file, one line end at its end removed.
func fileFunction(dir string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := readText(dir, args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(text), nil
		},
	})
}

func readText(dir, path string) (string, error) {
	const next = "Check the path; a relative one starts where this file lies."
	full := path
	if !filepath.IsAbs(full) {
		full = filepath.Join(dir, path)
	}
	info, err := os.Stat(full)
	if err != nil {
		return "", &funcError{fmt.Sprintf("file(%q) can't be read: %s", path, reason(err)), next}
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return "", &funcError{fmt.Sprintf("file(%q) is not a file", path), next}
	}
	f, err := os.Open(full)
	if err != nil {
		return "", &funcError{fmt.Sprintf("file(%q) can't be read: %s", path, reason(err)), next}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", &funcError{fmt.Sprintf("file(%q) can't be read: %s", path, reason(err)), next}
	}
	if len(b) > maxFile {
		return "", &funcError{fmt.Sprintf("file(%q) is larger than %d bytes", path, maxFile), "Take what you need into a smaller file."}
	}
	if !utf8.Valid(b) {
		return "", &funcError{fmt.Sprintf("file(%q) is not UTF-8 text", path), "Only texts can be values."}
	}
	return trimLineEnd(string(b)), nil
}

// trimLineEnd drops the line end that editors put behind the last line.
func trimLineEnd(s string) string {
	if n := len(s); n > 0 && s[n-1] == '\n' {
		s = s[:n-1]
		if n := len(s); n > 0 && s[n-1] == '\r' {
			s = s[:n-1]
		}
	}
	return s
}

// hostnameFunction is hostname().
func hostnameFunction() function.Function {
	return function.New(&function.Spec{
		Type: function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
			name, err := os.Hostname()
			if err != nil {
				return cty.NilVal, &funcError{"this machine's name is unknown: " + reason(err), "Write the name in quotes instead of hostname()."}
			}
			return cty.StringVal(name), nil
		},
	})
}
