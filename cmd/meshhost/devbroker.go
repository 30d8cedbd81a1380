package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/meshhost/meshhost/host/devbroker"
	"github.com/urfave/cli/v3"
)

type brokerFlags struct {
	listen, seed, data, log, fresh      string
	members, burst, perMinute, capacity int
}

func (a *app) devbrokerVerb() *cli.Command {
	var f brokerFlags
	return &cli.Command{
		Name: "devbroker", Usage: "run a broker for development, or write a seed for it",
		Description: "meshhost devbroker -new seed.json -members 4 writes a seed and, for each member, a NAME.key and a ready mesh block.\nmeshhost devbroker -seed seed.json runs it until interrupted.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "`ADDRESS` to listen on", Value: "127.0.0.1:7900", Destination: &f.listen},
			&cli.StringFlag{Name: "seed", Usage: "`FILE` with the meshes and members that exist", Destination: &f.seed},
			&cli.StringFlag{Name: "data", Usage: "`FILE` that keeps queue, claims, members and state over a crash", Destination: &f.data},
			&cli.StringFlag{Name: "log", Usage: "`FILE` that gets one JSON line for each frame", Destination: &f.log},
			&cli.IntFlag{Name: "send-burst", Usage: "sends at once that a member may do, `N`; 0: no limit", Value: 10, Destination: &f.burst},
			&cli.IntFlag{Name: "send-per-minute", Usage: "sends a minute after that, `N`; 0: no limit", Value: 60, Destination: &f.perMinute},
			&cli.IntFlag{Name: "capacity", Usage: "connections of a mesh, `N`; 0: no limit", Value: 100, Destination: &f.capacity},
			&cli.StringFlag{Name: "new", Usage: "write a fresh seed to `FILE` and end", Destination: &f.fresh},
			&cli.IntFlag{Name: "members", Usage: "with -new: the number `N` of members", Value: 2, Destination: &f.members},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if _, err := words(cmd, 0, 0); err != nil {
				return err
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			if f.fresh != "" {
				return devbroker.NewSeed(f.fresh, f.members, "ws://"+f.listen+"/ws", a.stdout)
			}
			return a.broker(ctx, &f)
		},
	}
}

func (f *brokerFlags) check(cmd *cli.Command) error {
	switch {
	case f.seed == "" && f.fresh == "":
		return usagef("make a seed by -new seed.json, then run with -seed seed.json", "meshhost devbroker: -seed is missing")
	case f.seed != "" && f.fresh != "":
		return usagef("leave one of them out", "meshhost devbroker: -new writes a seed, -seed runs one")
	case f.fresh == "" && cmd.IsSet("members"):
		return usagef("add -new FILE", "meshhost devbroker: -members has a meaning with -new only")
	case f.members < 1 || f.members > 1000:
		return usagef("use 1 to 1000", "meshhost devbroker: -members is %d", f.members)
	case f.burst < 0 || f.perMinute < 0 || f.capacity < 0:
		return usagef("use 0 for no limit", "meshhost devbroker: a limit is negative")
	}
	// The broker appends to its log and rewrites its data.
	for _, two := range [][2][2]string{
		{{"log", f.log}, {"seed", f.seed}}, {{"log", f.log}, {"data", f.data}}, {{"data", f.data}, {"seed", f.seed}},
	} {
		if a, b := two[0], two[1]; a[1] != "" && b[1] != "" && filepath.Clean(a[1]) == filepath.Clean(b[1]) {
			return usagef("name two files", "meshhost devbroker: -%s and -%s are one file, %s", a[0], b[0], b[1])
		}
	}
	if f.fresh != "" {
		for _, name := range []string{"data", "log", "send-burst", "send-per-minute", "capacity"} {
			if cmd.IsSet(name) {
				return usagef("leave it out", "meshhost devbroker: -%s has no meaning with -new", name)
			}
		}
	}
	return nil
}

func (a *app) broker(ctx context.Context, f *brokerFlags) (err error) {
	seed, err := devbroker.LoadSeed(f.seed)
	if err != nil {
		return notThere(err, "make one by meshhost devbroker -new "+f.seed)
	}
	// First of all: a broker that can't listen must not have touched the data file.
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", f.listen)
	if err != nil {
		return &exitError{code: exitFailed, msg: fmt.Sprintf("devbroker: %v", err), next: "choose another address by -listen"}
	}
	b, err := devbroker.New(devbroker.Options{
		Seed: seed, DataFile: f.data, LogFile: f.log, SendBurst: f.burst, SendPerMinute: f.perMinute, Capacity: f.capacity,
		Logger: hclog.New(&hclog.LoggerOptions{Name: "devbroker", Output: a.stderr, Level: hclog.Info}),
	})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer func() {
		if cerr := b.Close(); err == nil {
			err = cerr
		}
	}()
	fmt.Fprintf(a.stdout, "ws://%s/ws\n", ln.Addr())
	return b.Serve(ctx, ln)
}
