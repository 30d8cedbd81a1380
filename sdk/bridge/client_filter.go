package bridge

import (
	"context"

	"github.com/meshhost/meshhost/sdk"
	"github.com/meshhost/meshhost/sdk/internal/wire"
	filterv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/filter/v1"
)

// filterClient is sdk.PeerFilter over the wire.
type filterClient struct {
	rpc filterv1.FilterServiceClient
}

func (c filterClient) Filter(ctx context.Context, query sdk.PeerQuery, rows []sdk.Peer) ([]sdk.Verdict, error) {
	res, err := c.rpc.Filter(ctx, &filterv1.FilterRequest{
		Mesh:   query.Mesh,
		Viewer: query.Viewer,
		All:    query.All,
		Rows:   peersToProto(rows),
	})
	if err != nil {
		return nil, sdk.ErrorFromStatus(err)
	}
	if err := count("filter.Filter", len(res.GetVerdicts()), len(rows)); err != nil {
		return nil, err
	}
	verdicts := make([]sdk.Verdict, len(rows))
	for i, v := range res.GetVerdicts() {
		if v.GetHide() && v.GetReason() == "" {
			return nil, fault("filter.Filter", "verdict %d hides a row without a reason", i)
		}
		verdicts[i] = sdk.Verdict{Hide: v.GetHide(), Reason: wire.Clip(v.GetReason()), Annotations: v.GetAnnotations()}
	}
	return verdicts, nil
}

func peersToProto(from []sdk.Peer) []*filterv1.Peer {
	res := make([]*filterv1.Peer, len(from))
	for i := range from {
		res[i] = peerToProto(&from[i])
	}
	return res
}

func peerToProto(p *sdk.Peer) *filterv1.Peer {
	res := &filterv1.Peer{
		Mesh:              p.Mesh,
		PubKey:            p.PubKey,
		MemberPubKey:      p.MemberPubKey,
		DisplayName:       p.DisplayName,
		Status:            p.Status,
		Summary:           p.Summary,
		SessionId:         p.SessionID,
		ConnectedAtUnixMs: wire.Millis(p.ConnectedAt),
		Cwd:               p.Cwd,
		Role:              p.Role,
		Hostname:          p.Hostname,
		PeerType:          p.PeerType,
		Channel:           p.Channel,
		Model:             p.Model,
		Visible:           p.Visible,
		WireJson:          p.Wire,
		Annotations:       p.Annotations,
	}
	for _, g := range p.Groups {
		res.Groups = append(res.Groups, &filterv1.Group{Name: g.Name, Role: g.Role})
	}
	return res
}
