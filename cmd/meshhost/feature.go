package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

// helpTimeout bounds what the root's help waits for a daemon that is there and
// does not answer; where there is none it waits for nothing.
const helpTimeout = 3 * time.Second

// featuresTitle heads the features' verbs in the help.
const featuresTitle = "verbs of the running daemon's features"

// useArgs finds the socket before the command tree is parsed.
func (a *app) useArgs(args []string) (*control.Client, error) {
	a.socket, a.config = flagValue(args, "socket"), flagValue(args, "config")
	c, err := a.client()
	a.socket, a.config = "", "" // the parser sets them
	return c, err
}

// addFeatures adds the verbs of every feature for the help, if the daemon is
// there.
func (a *app) addFeatures(ctx context.Context, root *cli.Command, args []string) {
	c, err := a.useArgs(args)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, helpTimeout)
	defer cancel()
	list, err := c.Features(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		a.warn("the daemon does not answer: the verbs of its plugins are missing here")
	}
	if err != nil {
		return
	}
	for i := range list {
		if root.Command(list[i].Name) == nil {
			root.Commands = append(root.Commands, a.featureVerb(&list[i]))
		}
	}
}

// addFeature finds the feature whose verb is args[at], adds it to root, and
// returns args with the feature's default method where none is named.
func (a *app) addFeature(ctx context.Context, root *cli.Command, args []string, at int) ([]string, error) {
	verb := args[at]
	c, err := a.useArgs(args)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.Features(ctx)
	names := verbNames(root)
	var gone *control.UnreachableError
	if errors.As(err, &gone) {
		return nil, &exitError{
			code: exitUnreachable,
			msg:  fmt.Sprintf("%q is no verb of meshhost itself, and no daemon answers that could have a feature of that name.%s\n  %s", verb, didYouMean(verb, names), gone),
			next: "verbs of features need the running daemon: meshhost -config mesh.hcl",
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == verb {
			if len(list[i].Methods) == 0 {
				return nil, noMethods(&list[i])
			}
			root.Commands = append(root.Commands, a.featureVerb(&list[i]))
			return a.defaultMethod(&list[i], args, at)
		}
		names = append(names, list[i].Name)
	}
	return nil, usagef("meshhost -h lists the verbs", "there is no verb %q.%s", verb, didYouMean(verb, names))
}

// noMethods says why a feature has no verbs: its plugin never told them.
func noMethods(f *control.Feature) error {
	return &exitError{
		code: exitFailed, msg: fmt.Sprintf("the verbs of %s are not known: its plugin %s is %s", f.Name, clean(f.Plugin), clean(f.State)),
		next: "meshhost plugin list shows why",
	}
}

// defaultMethod inserts the default method behind the verb unless a method is
// named: bare `inbox -unread` is `inbox list -unread`.
func (a *app) defaultMethod(f *control.Feature, args []string, at int) ([]string, error) {
	def := methodOf(f, f.DefaultMethod)
	if def == nil {
		return args, nil
	}
	params, err := paramsOf(def)
	if err != nil {
		return nil, err
	}
	takeValue := slices.Concat(valueFlags, []string{"mesh"})
	for _, p := range params {
		if !p.isBool() {
			takeValue = append(takeValue, p.flag())
		}
	}
	word, _ := wordFrom(args, at+1, takeValue)
	switch {
	case word == "" && a.help:
		return args, nil // the help of the feature, not of one method
	case methodOf(f, word) != nil:
		return args, nil
	case word != "" && len(def.CLI.Args) == 0:
		return args, nil // group says that there is no such method
	}
	return slices.Insert(slices.Clone(args), at+1, def.Name), nil
}

func methodOf(f *control.Feature, name string) *sdk.Method {
	for i := range f.Methods {
		if f.Methods[i].Name == name && name != "" {
			return &f.Methods[i]
		}
	}
	return nil
}

// featureVerb makes a command of a feature's declaration.
func (a *app) featureVerb(f *control.Feature) *cli.Command {
	verb := &cli.Command{Name: f.Name, Usage: clean(f.Doc), Category: featuresTitle}
	if f.DefaultMethod != "" {
		verb.Description = "Without a verb it is " + f.Name + " " + f.DefaultMethod + "."
	}
	for i := range f.Methods {
		verb.Commands = append(verb.Commands, a.methodVerb(f, &f.Methods[i]))
	}
	return verb
}

// call is one call of a method from the command line.
type call struct {
	a       *app
	feature string
	method  *sdk.Method
	params  []*param
	mesh    string
	follow  bool
}

// ownFlags are the flags that every method has; a parameter of that name is
// reached by position or through the API only.
var ownFlags = []string{"mesh", "follow", "json", "socket", "config", "help", "h"}

func (a *app) methodVerb(f *control.Feature, m *sdk.Method) *cli.Command {
	c := &call{a: a, feature: f.Name, method: m}
	cmd := &cli.Command{Name: m.Name, Usage: clean(m.Doc), Hidden: m.CLI.Hidden, ArgsUsage: ""}
	var err error
	if c.params, err = paramsOf(m); err != nil {
		cmd.Action = func(context.Context, *cli.Command) error {
			return fmt.Errorf("%s %s: the plugin's declaration: %w", f.Name, m.Name, err)
		}
		return cmd
	}
	var usage []string
	for _, name := range m.CLI.Args {
		p := c.param(name)
		if p == nil {
			continue
		}
		word := strings.ToUpper(p.flag())
		if p.kind == "array" {
			word += "…"
		}
		if !p.required {
			word = "[" + word + "]"
		}
		usage = append(usage, word)
	}
	cmd.ArgsUsage = strings.Join(usage, " ")
	cmd.Flags = append(cmd.Flags, meshFlag(&c.mesh))
	for _, p := range c.params {
		if !slices.Contains(m.CLI.Args, p.name) && !slices.Contains(ownFlags, p.flag()) {
			cmd.Flags = append(cmd.Flags, &cli.GenericFlag{Name: p.flag(), Usage: p.usage(), Value: p})
		}
	}
	if m.CLI.Follow != nil {
		cmd.Flags = append(cmd.Flags, &cli.BoolFlag{Name: "follow", Usage: "go on with what comes, until interrupted", Destination: &c.follow})
	}
	cmd.Action = c.run
	return cmd
}

func (c *call) param(name string) *param {
	for _, p := range c.params {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (c *call) run(ctx context.Context, cmd *cli.Command) error {
	if err := c.words(cmd); err != nil {
		return err
	}
	cl, err := c.a.client()
	if err != nil {
		return err
	}
	switch {
	case c.method.CLI.Stream != "":
		return c.stream(ctx, cl)
	case c.follow:
		return c.followRows(ctx, cl)
	}
	res, err := c.ask(ctx, cl, nil)
	if err != nil {
		return err
	}
	return c.print(res)
}

// words gives the positional words to the parameters that take them.
func (c *call) words(cmd *cli.Command) error {
	args := cmd.Args().Slice()
	usage := usageOf(cmd)
	for _, name := range c.method.CLI.Args {
		p := c.param(name)
		if p == nil || len(args) == 0 {
			continue
		}
		take := 1
		if p.kind == "array" {
			take = len(args)
		}
		for _, word := range args[:take] {
			if err := p.Set(word); err != nil {
				return usagef(usage, "%s: %s: %v", cmd.FullName(), strings.ToUpper(name), err)
			}
		}
		args = args[take:]
	}
	if len(args) > 0 {
		return usagef(usage+"; a text of several words goes in quotes", "%s: %q is one word too many", cmd.FullName(), args[0])
	}
	for _, p := range c.params {
		if p.required && !p.set {
			what := "-" + p.flag()
			if slices.Contains(c.method.CLI.Args, p.name) {
				what = strings.ToUpper(p.flag())
			}
			return usagef(usage, "%s: %s is missing", cmd.FullName(), what)
		}
	}
	return nil
}

// ask calls the method; extra replaces parameters.
func (c *call) ask(ctx context.Context, cl *control.Client, extra map[string]jsontext.Value) (jsontext.Value, error) {
	params := map[string]jsontext.Value{}
	for _, p := range c.params {
		if p.set {
			params[p.name] = p.value()
		}
	}
	for name, v := range extra {
		params[name] = v
	}
	raw, err := json.Marshal(params, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return cl.Call(ctx, c.feature, c.method.Name, c.mesh, raw)
}

// schema is the schema field of -json output.
func (c *call) schema() string {
	if s := c.method.CLI.Schema; s != "" {
		return s
	}
	return c.feature + "_" + c.method.Name + "/v1"
}

// print shows a result as the declaration says.
func (c *call) print(res jsontext.Value) error {
	hints := &c.method.CLI
	ms, err := members(res)
	if err != nil {
		return fmt.Errorf("%s %s: the plugin's result: %w", c.feature, c.method.Name, err)
	}
	for _, w := range elements(field(ms, "warnings")) {
		c.a.warn("%s", clean(cell(w)))
	}
	switch {
	case c.a.json.on:
		return c.a.emit(c.schema(), hints.Rows, res)
	case hints.Rows != "":
		return c.table(elements(field(ms, hints.Rows)), true)
	case hints.Print != "":
		return c.a.printText(field(ms, hints.Print))
	default:
		return c.a.printFields(res)
	}
}

// table prints rows; head adds the line of column names.
func (c *call) table(rows []jsontext.Value, head bool) error {
	columns := c.method.CLI.Columns
	if len(columns) == 0 && len(rows) > 0 {
		ms, err := members(rows[0])
		if err != nil {
			return err
		}
		for _, m := range ms {
			columns = append(columns, m.name)
		}
	}
	var names []string
	for _, col := range columns {
		if head {
			names = append(names, strings.ToUpper(strings.ReplaceAll(col, "_", " ")))
		}
	}
	t := newTable(c.a.stdout, names...)
	for i, row := range rows {
		ms, err := members(row)
		if err != nil {
			return fmt.Errorf("%s %s: row %d of the plugin's result: %w", c.feature, c.method.Name, i, err)
		}
		cells := make([]string, 0, len(columns))
		for _, col := range columns {
			cells = append(cells, clip(cell(field(ms, col))))
		}
		t.row(cells...)
	}
	return t.flush()
}

// maxCell is how many characters of a value a table shows: its columns are as
// wide as their widest value, and a message may have 48,000 bytes.
const maxCell = 200

// clip cuts a text to maxCell characters.
func clip(s string) string {
	if len(s) <= maxCell {
		return s
	}
	n := 0
	for i := range s {
		if n == maxCell {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// printText prints one value alone. A terminal gets it without control
// characters, a pipe as it is.
func (a *app) printText(v jsontext.Value) error {
	s := cell(v)
	if v.Kind() == jsontext.KindBeginObject || v.Kind() == jsontext.KindBeginArray {
		s = string(v)
	}
	if terminal(a.stdout) {
		s = clean(s)
	}
	_, err := fmt.Fprintln(a.stdout, s)
	return err
}
