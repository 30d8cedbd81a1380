package main

import (
	"context"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/meshhost/meshhost/sdk"
)

// peers is the feature. The SDK lets no call run beside setup, so host needs no
// lock.
type peers struct {
	host sdk.Host
}

type noOptions struct{}

func (p *peers) plugin() sdk.Plugin {
	return sdk.Plugin{
		Name:    "peers",
		Version: sdk.Version,
		Doc:     "how others see this member: summary, status, visibility, profile, groups",
		Config: sdk.Configured(func(_ context.Context, _ noOptions, env sdk.Env) error {
			p.host = env.Host
			return nil
		}, nil),
		Feature: &sdk.Feature{
			Methods: []sdk.Method{
				sdk.NewMethod("summary", "say in a line what you are doing", sdk.CLI{Args: []string{"summary"}}, p.summary),
				sdk.NewMethod("status", "set the status: idle, working or dnd (which holds messages back)", sdk.CLI{Args: []string{"status"}}, p.status),
				sdk.NewMethod("visible", "be in the lists of others, or not: true or false", sdk.CLI{Args: []string{"visible"}}, p.visible),
				sdk.NewMethod("profile", "set fields of the profile; others stay as they are", sdk.CLI{}, p.profile),
				sdk.NewMethod("join", "join a group, or change the role in it", sdk.CLI{Args: []string{"name", "role"}}, p.join),
				sdk.NewMethod("leave", "leave a group", sdk.CLI{Args: []string{"name"}}, p.leave),
			},
			Frames: []string{"set_summary", "set_status", "set_visible", "set_profile", "join_group", "leave_group"},
		},
	}
}

type summaryParams struct {
	Summary string `json:"summary" doc:"the text; empty clears it"`
}

type statusParams struct {
	Status string `json:"status" doc:"idle, working or dnd"`
}

type visibleParams struct {
	Visible bool `json:"visible" doc:"true or false"`
}

// profileParams has no field that is not set: the broker merges per field, and an
// empty one clears.
type profileParams struct {
	Avatar       *string  `json:"avatar,omitzero" doc:"a picture, as a URL or an emoji"`
	Title        *string  `json:"title,omitzero" doc:"what you are"`
	Bio          *string  `json:"bio,omitzero" doc:"a few words about you"`
	Capabilities []string `json:"capabilities,omitzero" doc:"what you can do"`
}

type joinParams struct {
	Name string `json:"name" doc:"the group, with or without @"`
	Role string `json:"role,omitempty" doc:"your role in it"`
}

type leaveParams struct {
	Name string `json:"name" doc:"the group, with or without @"`
}

// The results say what was asked for, as it was sent.
type (
	summaryResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		summaryParams
	}
	statusResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		statusParams
	}
	visibleResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		visibleParams
	}
	profileResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		profileParams
	}
	joinResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		joinParams
	}
	leaveResult struct {
		Mesh string `json:"mesh" doc:"the mesh"`
		leaveParams
	}
)

func (p *peers) summary(ctx context.Context, call sdk.Call, in summaryParams) (summaryResult, error) {
	return summaryResult{call.Mesh, in}, p.tell(ctx, call, struct {
		Type string `json:"type"`
		summaryParams
	}{"set_summary", in})
}

// statuses are all that the broker takes (PROTOCOL 4.6); it ignores others
// without a word.
var statuses = []string{"idle", "working", "dnd"}

func (p *peers) status(ctx context.Context, call sdk.Call, in statusParams) (statusResult, error) {
	if !slices.Contains(statuses, in.Status) {
		return statusResult{}, sdk.Errorf(sdk.CodeInvalid, "bad_status", "there is no status %q", in.Status).
			WithNext("Use one of " + strings.Join(statuses, ", ") + ".")
	}
	return statusResult{call.Mesh, in}, p.tell(ctx, call, struct {
		Type string `json:"type"`
		statusParams
	}{"set_status", in})
}

func (p *peers) visible(ctx context.Context, call sdk.Call, in visibleParams) (visibleResult, error) {
	return visibleResult{call.Mesh, in}, p.ask(ctx, call, struct {
		Type string `json:"type"`
		visibleParams
	}{"set_visible", in})
}

func (p *peers) profile(ctx context.Context, call sdk.Call, in profileParams) (profileResult, error) {
	if in.Avatar == nil && in.Title == nil && in.Bio == nil && in.Capabilities == nil {
		return profileResult{}, sdk.Errorf(sdk.CodeInvalid, "empty_profile", "nothing to set").
			WithNext("Give at least one of -avatar, -title, -bio and -capabilities.")
	}
	return profileResult{call.Mesh, in}, p.ask(ctx, call, struct {
		Type string `json:"type"`
		profileParams
	}{"set_profile", in})
}

func (p *peers) join(ctx context.Context, call sdk.Call, in joinParams) (joinResult, error) {
	if err := groupName(&in.Name); err != nil {
		return joinResult{}, err
	}
	return joinResult{call.Mesh, in}, p.tell(ctx, call, struct {
		Type string `json:"type"`
		joinParams
	}{"join_group", in})
}

func (p *peers) leave(ctx context.Context, call sdk.Call, in leaveParams) (leaveResult, error) {
	if err := groupName(&in.Name); err != nil {
		return leaveResult{}, err
	}
	return leaveResult{call.Mesh, in}, p.tell(ctx, call, struct {
		Type string `json:"type"`
		leaveParams
	}{"leave_group", in})
}

// groupName takes the @ away that people write before a group, and that the wire
// does not have.
func groupName(name *string) error {
	*name = strings.TrimPrefix(*name, "@")
	if *name == "" {
		return sdk.Errorf(sdk.CodeInvalid, "empty_group", "the group has no name").WithNext("Name one, such as reviewers.")
	}
	return nil
}

// tell sends a frame that the broker does not answer.
func (p *peers) tell(ctx context.Context, call sdk.Call, frame any) error {
	req, err := request(call, frame)
	if err != nil {
		return err
	}
	return p.host.Notify(ctx, req)
}

// ask sends a frame that the broker acks, so that a refusal reaches the caller.
// While the mesh is not connected the host answers that it will tell it later.
func (p *peers) ask(ctx context.Context, call sdk.Call, frame any) error {
	req, err := request(call, frame)
	if err != nil {
		return err
	}
	_, err = p.host.Request(ctx, req)
	return err
}

func request(call sdk.Call, frame any) (sdk.FrameRequest, error) {
	if err := call.NeedMesh(); err != nil {
		return sdk.FrameRequest{}, err
	}
	raw, err := json.Marshal(frame)
	if err != nil {
		return sdk.FrameRequest{}, err
	}
	return sdk.FrameRequest{Mesh: call.Mesh, Identity: call.Identity, Frame: raw}, nil
}
