package main

import (
	"slices"
	"strings"
)

// valueFlags are the root's flags that take the next word as their value.
var valueFlags = []string{"config", "socket"}

// flagOf splits "-name=value" or "--name=value".
func flagOf(arg string) (name string, hasValue, ok bool) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return "", false, false
	}
	name, _, hasValue = strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
	return name, hasValue, true
}

// firstWord finds the verb: the first word that is neither a flag of the root
// nor the value of one. at is -1 if there is none.
func firstWord(args []string) (word string, at int) {
	return wordFrom(args, 0, valueFlags)
}

// wordFrom is firstWord from a position on, with other flags that take a value.
func wordFrom(args []string, from int, takeValue []string) (word string, at int) {
	for i := from; i < len(args); i++ {
		if args[i] == "--" {
			if i+1 < len(args) {
				return args[i+1], i + 1
			}
			break
		}
		name, hasValue, ok := flagOf(args[i])
		if !ok {
			return args[i], i
		}
		if !hasValue && slices.Contains(takeValue, name) {
			i++
		}
	}
	return "", -1
}

// flagValue finds the value of a root flag wherever it stands. It is needed
// before the command tree is known.
func flagValue(args []string, want string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, hasValue, ok := flagOf(arg)
		if !ok || name != want {
			continue
		}
		if hasValue {
			_, v, _ := strings.Cut(arg, "=")
			return v
		}
		if i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// hasFlag reports whether a flag is among args.
func hasFlag(args []string, want string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, _, ok := flagOf(arg)
		return ok && name == want
	})
}

// takeHelp takes -h, -help and the verb help out of args, so that help can be
// asked for anywhere before "--", whatever else is missing.
func takeHelp(args []string) (rest []string, help bool) {
	if word, at := firstWord(args); word == "help" {
		args, help = slices.Concat(args[:at], args[at+1:]), true
	}
	for i, arg := range args {
		if arg == "--" {
			return append(rest, args[i:]...), help
		}
		if name, _, ok := flagOf(arg); ok && (name == "h" || name == "help") {
			help = true
			continue
		}
		rest = append(rest, arg)
	}
	return rest, help
}
