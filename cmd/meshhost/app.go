package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/meshhost/meshhost/host/config"
	"github.com/meshhost/meshhost/host/control"
	"github.com/meshhost/meshhost/sdk"
	"github.com/urfave/cli/v3"
)

// callTimeout bounds one question to the daemon; it answers in milliseconds
// unless a plugin or the mesh keeps it waiting.
const callTimeout = 60 * time.Second

// daemon is what this command needs of package host.
type daemon struct {
	// run is the daemon itself; it returns nil after an orderly end by ctx.
	run func(ctx context.Context, configPath string, dev bool, stdout, stderr io.Writer) error
	// validate checks a configuration, plugins included unless noPlugins.
	validate func(ctx context.Context, path string, noPlugins bool) (config.Diagnostics, error)
	// describe starts a plugin's binary, asks what it is, and ends it.
	describe func(ctx context.Context, path string) (sdk.Description, error)
	version  string
}

// configError is a configuration with mistakes.
type configError struct{ diags config.Diagnostics }

func (e *configError) Error() string { return "the configuration has mistakes" }

// app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	daemon         daemon

	json    jsonFlag
	socket  string // -socket
	config  string // -config
	dev     bool   // -dev
	help    bool   // -h or the verb help
	clients []*control.Client
}

// run parses args (without the program's name), runs the verb and returns the
// exit code.
func (a *app) run(ctx context.Context, args []string) int {
	defer func() {
		for _, c := range a.clients {
			c.Close()
		}
	}()
	err := a.dispatch(ctx, args)
	return a.report(err, ctx.Err() != nil)
}

func (a *app) dispatch(ctx context.Context, args []string) error {
	args, a.help = takeHelp(args)
	root := a.tree()
	verb, at := firstWord(args)
	switch {
	case verb == "" && a.help:
		a.addFeatures(ctx, root, args) // help lists them if the daemon answers at once
	case verb != "" && root.Command(verb) == nil && !hasFlag(args[:at], "dev"):
		var err error
		if args, err = a.addFeature(ctx, root, args, at); err != nil {
			return err
		}
	}
	prepare(root, a)
	return root.Run(ctx, append([]string{"meshhost"}, args...))
}

// tree is every verb of this binary.
func (a *app) tree() *cli.Command {
	return &cli.Command{
		Name:      "meshhost",
		Usage:     "joins this machine to a message mesh",
		UsageText: "meshhost -config mesh.hcl    the daemon\nmeshhost -dev                one with a broker of its own, to try things\nmeshhost VERB …              ask the running daemon",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "configuration, a `FILE` or a directory of *.hcl", Destination: &a.config},
			&cli.BoolFlag{Name: "dev", Usage: "run with a throw-away broker and all first-party plugins", Destination: &a.dev, Local: true},
			&cli.StringFlag{Name: "socket", Usage: "the daemon's `SOCKET` (else $MESHHOST_SOCKET, -config's, the default)", Destination: &a.socket},
			&cli.GenericFlag{Name: "json", Usage: "print one JSON object; -json=a,b only these fields", Value: &a.json},
		},
		Action: a.runDaemon,
		Commands: []*cli.Command{
			a.statusVerb(), a.peerVerb(), a.sendVerb(), a.outboxVerb(), a.messageVerb(), a.eventsVerb(), a.pluginVerb(), a.reloadVerb(),
			a.validateVerb(), a.fmtVerb(), a.devbrokerVerb(), a.versionVerb(),
			{Name: "help", Usage: "show help for a verb", ArgsUsage: "[VERB…]", Action: func(context.Context, *cli.Command) error { return nil }},
		},
	}
}

// prepare gives every command what urfave/cli would otherwise decide by itself:
// its own help exits 3 on an unknown word, its usage errors exit 1, and a
// command that only groups others ignores stray words.
func prepare(cmd *cli.Command, a *app) {
	cmd.HideHelp = true
	cmd.Writer, cmd.ErrWriter, cmd.Reader = a.stdout, a.stderr, a.stdin
	cmd.OnUsageError = a.onUsageError
	cmd.ExitErrHandler = func(context.Context, *cli.Command, error) {}
	action := cmd.Action
	if action == nil {
		action = group
	}
	cmd.Action = func(ctx context.Context, c *cli.Command) error {
		if a.help && (len(c.Commands) == 0 || !c.Args().Present()) { // else the word is no verb, and action says so
			return a.showHelp(c)
		}
		return action(ctx, c)
	}
	for _, sub := range cmd.Commands {
		prepare(sub, a)
	}
}

// onUsageError says which flag of which verb is wrong.
func (a *app) onUsageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	msg := err.Error()
	if name, ok := strings.CutPrefix(msg, "flag provided but not defined: -"); ok {
		msg = "there is no flag -" + name + "." + didYouMean("-"+name, flagNames(cmd))
	}
	if name, ok := strings.CutPrefix(msg, "flag needs an argument: "); ok {
		msg = "the flag " + name + " needs a value"
	}
	return usagef(`"`+cmd.FullName()+` -h" lists the flags; a text that begins with a dash goes behind --`, "%s: %s", cmd.FullName(), msg)
}

// group answers for a command that only holds others.
func group(_ context.Context, cmd *cli.Command) error {
	names := verbNames(cmd)
	next := cmd.FullName() + " has: " + strings.Join(names, ", ")
	if word := cmd.Args().First(); word != "" {
		return usagef(next, "%s: there is no verb %q.%s", cmd.FullName(), word, didYouMean(word, names))
	}
	return usagef(next, "%s: a verb is missing", cmd.FullName())
}

func verbNames(cmd *cli.Command) []string {
	var names []string
	for _, c := range cmd.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

// flagNames are the flags that cmd takes, with a dash.
func flagNames(cmd *cli.Command) []string {
	var names []string
	for i, c := range cmd.Lineage() {
		for _, f := range c.Flags {
			if lf, ok := f.(cli.LocalFlag); i > 0 && ok && lf.IsLocal() {
				continue
			}
			for _, n := range f.Names() {
				names = append(names, "-"+n)
			}
		}
	}
	return names
}

// words checks the number of positional words.
func words(cmd *cli.Command, least, most int) ([]string, error) {
	args := cmd.Args().Slice()
	usage := usageOf(cmd)
	switch {
	case len(args) < least:
		return nil, usagef(usage, "%s: something is missing", cmd.FullName())
	case most >= 0 && len(args) > most && most == 0:
		return nil, usagef(usage, "%s: it takes no words, but there is %q", cmd.FullName(), args[0])
	case most >= 0 && len(args) > most:
		return nil, usagef(usage+"; a text of several words goes in quotes", "%s: %q is one word too many", cmd.FullName(), args[most])
	}
	return args, nil
}

// usageOf is how the words of a verb go.
func usageOf(cmd *cli.Command) string {
	return strings.TrimSpace("usage: " + cmd.FullName() + " " + cmd.ArgsUsage)
}

// runDaemon is the root without a verb.
func (a *app) runDaemon(ctx context.Context, cmd *cli.Command) error {
	if word := cmd.Args().First(); word != "" {
		return usagef("meshhost -h lists the verbs", "meshhost: %q is one word too many.%s", word, didYouMean(word, verbNames(cmd)))
	}
	switch {
	case a.dev && a.config != "":
		return usagef("leave one of them out", "-dev brings a configuration of its own, so -config has no meaning with it")
	case !a.dev && a.config == "":
		return usagef("run meshhost -config mesh.hcl, meshhost -dev, or a verb; meshhost -h lists them", "there is nothing to do")
	case a.socket != "":
		return usagef("say control { socket = … } in the configuration", "-socket is for verbs; the daemon's socket comes from its configuration")
	case a.json.on:
		return usagef("say log { format = \"json\" } in the configuration", "-json is for verbs")
	}
	err := a.daemon.run(ctx, a.config, a.dev, a.stdout, a.stderr)
	var bad *configError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return a.badConfig(bad.diags)
	}
	if ctx.Err() != nil { // its own failure counts more than the signal
		return &exitError{code: exitFailed, msg: err.Error()}
	}
	return err
}

// findSocket is where the daemon should be.
func (a *app) findSocket() (string, error) {
	if a.socket != "" {
		return a.socket, nil
	}
	if s := a.getenv("MESHHOST_SOCKET"); s != "" {
		return s, nil
	}
	if a.config != "" {
		socket, diags := config.ControlSocket(a.config)
		if diags.HasErrors() {
			return "", a.badConfig(diags)
		}
		return socket, nil
	}
	socket, err := config.DefaultSocket()
	if err != nil {
		return "", &exitError{code: exitUnreachable, msg: err.Error(), next: "name the socket by -socket"}
	}
	return socket, nil
}

// badConfig prints what is wrong with a configuration.
func (a *app) badConfig(diags config.Diagnostics) error {
	if err := diags.WriteText(a.stderr, a.color(a.stderr)); err != nil {
		return err
	}
	return &exitError{code: exitConfig}
}

// client is a connection to the daemon; run closes it.
func (a *app) client() (*control.Client, error) {
	if n := len(a.clients); n > 0 {
		return a.clients[n-1], nil
	}
	socket, err := a.findSocket()
	if err != nil {
		return nil, err
	}
	c := control.NewClient(socket)
	a.clients = append(a.clients, c)
	return c, nil
}
