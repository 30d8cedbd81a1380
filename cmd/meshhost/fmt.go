package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/meshhost/meshhost/host/config"
	"github.com/urfave/cli/v3"
)

// maxSource bounds a file that fmt reads.
const maxSource = 16 << 20

func (a *app) fmtVerb() *cli.Command {
	var check, write bool
	return &cli.Command{
		Name: "fmt", Usage: "format a configuration", ArgsUsage: "[FILE|DIR|-…]",
		Description: "Prints the formatted text; - reads stdin. Without a word it takes -config, else mesh.hcl.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "check", Usage: "print the names of files that would change, and exit 1 if there are any", Destination: &check},
			&cli.BoolFlag{Name: "w", Usage: "write files in place", Destination: &write},
		},
		Action: func(_ context.Context, cmd *cli.Command) error {
			if a.json.on {
				return usagef("leave -json out", "meshhost fmt: its output is HCL")
			}
			if check && write {
				return usagef("leave one of them out", "meshhost fmt: -check changes nothing, -w does")
			}
			names := cmd.Args().Slice()
			if len(names) == 0 && a.config != "" {
				names = []string{a.config}
			}
			if len(names) == 0 {
				names = []string{defaultConfig}
			}
			return a.format(names, check, write)
		},
	}
}

func (a *app) format(names []string, check, write bool) error {
	var files []string
	for _, name := range names {
		found, err := hclFiles(name)
		if err != nil {
			return err
		}
		files = append(files, found...)
	}
	changed := 0
	for _, name := range files {
		src, err := a.source(name)
		if err != nil {
			return err
		}
		if diags := config.CheckSyntax(name, src); diags.HasErrors() {
			return a.badConfig(diags)
		}
		out := config.Format(src)
		differs := !bytes.Equal(src, out)
		if differs {
			changed++
		}
		switch {
		case check && differs:
			_, err = fmt.Fprintln(a.stdout, name)
		case check:
		case write && name == "-":
			return usagef("leave -w out", "meshhost fmt: stdin can't be written in place")
		case write && differs:
			err = replaceFile(name, out)
		case write:
		default:
			_, err = a.stdout.Write(out)
		}
		if err != nil {
			return err
		}
	}
	if check && changed > 0 {
		return &exitError{code: exitFailed, msg: fmt.Sprintf("%d of %d files are not formatted", changed, len(files)), next: "meshhost fmt -w formats them"}
	}
	return nil
}

// hclFiles is the file itself, or the *.hcl files of a directory in name order,
// hidden ones left out, as the daemon reads it.
// JSON has no format of its own here.
func hclFiles(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, notThere(err, "name a configuration that exists")
	}
	if !info.IsDir() {
		if strings.HasSuffix(name, ".json") {
			return nil, usagef("a formatter of JSON lays it out", "meshhost fmt: %s is JSON, not HCL", name)
		}
		return []string{name}, nil
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".hcl") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, &exitError{code: exitNotFound, msg: "there is no *.hcl file in " + name}
	}
	return files, nil
}

// notThere gives the error of a missing file its exit code.
func notThere(err error, next string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &exitError{code: exitNotFound, msg: err.Error(), next: next}
	}
	return err
}

func (a *app) source(name string) ([]byte, error) {
	var r io.Reader = a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, notThere(err, "name a configuration that exists")
		}
		defer f.Close()
		r = f
	}
	src, err := io.ReadAll(io.LimitReader(r, maxSource+1))
	if err == nil && len(src) > maxSource {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxSource)
	}
	return src, err
}

// replaceFile writes beside name and renames, so that a crash leaves the old or
// the new text, and keeps the mode.
func replaceFile(name string, text []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(real), ".meshhost-fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after the rename
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), real)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
