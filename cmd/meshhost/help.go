package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"
)

// showHelp prints what a command does, on stdout: it was asked for.
func (a *app) showHelp(cmd *cli.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", cmd.FullName(), cmd.Usage)
	if cmd.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", cmd.Description)
	}
	b.WriteString("\nusage:\n")
	usage := cmd.UsageText
	if usage == "" {
		usage = cmd.FullName()
		if len(cmd.Commands) > 0 {
			usage += " VERB"
		}
		usage = strings.TrimSpace(usage+" "+cmd.ArgsUsage) + " [flags]"
	}
	for line := range strings.SplitSeq(usage, "\n") {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	if err := helpVerbs(&b, cmd.Commands); err != nil {
		return err
	}
	for i, c := range cmd.Lineage() {
		title := "flags"
		if i > 0 {
			title = "flags of " + c.FullName()
		}
		if err := helpFlags(&b, title, c.Flags, i > 0); err != nil {
			return err
		}
	}
	b.WriteString("\n-h shows the help of any verb. Flags may have one dash or two.\n")
	_, err := a.stdout.Write([]byte(b.String()))
	return err
}

// helpVerbs lists sub-commands, those of each category together.
func helpVerbs(b *strings.Builder, cmds []*cli.Command) error {
	var categories []string
	for _, c := range cmds {
		if !c.Hidden && !slices.Contains(categories, c.Category) {
			categories = append(categories, c.Category)
		}
	}
	for _, category := range categories {
		title := category
		if title == "" {
			title = "verbs"
		}
		fmt.Fprintf(b, "\n%s:\n", title)
		t := newTable(b)
		for _, c := range cmds {
			if c.Category == category && !c.Hidden {
				t.row("", c.Name, c.Usage)
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

// helpFlags lists flags; inherited leaves out those that don't pass on.
func helpFlags(b *strings.Builder, title string, flags []cli.Flag, inherited bool) error {
	var rows [][2]string
	for _, f := range flags {
		if lf, ok := f.(cli.LocalFlag); inherited && ok && lf.IsLocal() {
			continue
		}
		df, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		var names []string
		for _, n := range f.Names() {
			names = append(names, "-"+n)
		}
		value, usage := unquote(df.GetUsage())
		rows = append(rows, [2]string{strings.TrimSpace(strings.Join(names, ", ") + " " + value), usage})
	}
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	t := newTable(b)
	for _, r := range rows {
		t.row("", r[0], r[1])
	}
	return t.flush()
}

// unquote takes the name of a flag's value, written in backquotes, out of its
// usage, as package flag does. A name that the usage begins with and that a
// semicolon follows is no part of the sentence.
func unquote(usage string) (value, rest string) {
	before, after, ok := strings.Cut(usage, "`")
	if !ok {
		return "", usage
	}
	value, after, ok = strings.Cut(after, "`")
	if !ok {
		return "", usage
	}
	if alone, ok := strings.CutPrefix(after, "; "); ok && before == "" {
		return value, alone
	}
	return value, before + value + after
}
