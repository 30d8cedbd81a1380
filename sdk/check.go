package sdk

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
)

var (
	labelPattern  = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	methodPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

// check finds the author's mistakes before any host sees them.
func (p *Plugin) check() error {
	switch {
	case !labelPattern.MatchString(p.Name):
		return fmt.Errorf("sdk.Plugin.Name %q: use a-z, 0-9, - and _, with a letter first, at most 63 characters", p.Name)
	case p.Version == "":
		return errors.New(`sdk.Plugin.Version is empty: set the plugin's own version, such as "0.1.0"`)
	case p.Outbox == nil && p.PushHandler == nil && p.PeerFilter == nil && p.Feature == nil:
		return errors.New("sdk.Plugin does nothing: set at least one of Outbox, PushHandler, PeerFilter and Feature")
	case p.Durable && p.Outbox == nil:
		return errors.New("sdk.Plugin.Durable is set, but there is no Outbox")
	case len(p.Wants) > 0 && p.PushHandler == nil:
		return errors.New("sdk.Plugin.Wants is set, but there is no PushHandler")
	case p.Feature != nil:
		return p.Feature.check()
	}
	return nil
}

func (f *Feature) check() error {
	if len(f.Methods) == 0 {
		return errors.New("sdk.Feature.Methods is empty: a feature has at least one method")
	}
	names := make([]string, len(f.Methods))
	for i := range f.Methods {
		m := &f.Methods[i]
		switch {
		case m.call == nil:
			return fmt.Errorf("sdk.Feature.Methods: %q was not made by NewMethod", m.Name)
		case !methodPattern.MatchString(m.Name):
			return fmt.Errorf("sdk.Feature.Methods: name %q: use a-z, 0-9 and _, with a letter first", m.Name)
		case slices.Contains(names[:i], m.Name):
			return fmt.Errorf("sdk.Feature.Methods: %q is there twice", m.Name)
		}
		for _, arg := range m.CLI.Args {
			if !slices.Contains(m.names, arg) {
				return fmt.Errorf("sdk.Feature.Methods: %q has the argument %q in CLI.Args, which is no parameter", m.Name, arg)
			}
		}
		if c := m.CLI.Follow; c != nil && !slices.Contains(m.names, c.Cursor) {
			return fmt.Errorf("sdk.Feature.Methods: %q follows by the cursor %q, which is no parameter", m.Name, c.Cursor)
		}
		names[i] = m.Name
	}
	if f.Default != "" && !slices.Contains(names, f.Default) {
		return fmt.Errorf("sdk.Feature.Default %q is none of its methods", f.Default)
	}
	if len(f.Watches) > 0 && f.OnFrame == nil {
		return errors.New("sdk.Feature.Watches is set, but there is no OnFrame")
	}
	if f.OnFrame != nil && len(f.Watches) == 0 {
		return errors.New("sdk.Feature.OnFrame is set, but Watches names no frame type")
	}
	return nil
}
