package sdk

import (
	"context"

	"github.com/meshhost/meshhost/sdk/internal/wire"
	filterv1 "github.com/meshhost/meshhost/sdk/proto/meshhost/plugin/filter/v1"
)

type filterServer struct {
	filterv1.UnimplementedFilterServiceServer
	impl PeerFilter
}

func (s filterServer) Filter(ctx context.Context, req *filterv1.FilterRequest) (*filterv1.FilterResponse, error) {
	query := PeerQuery{Mesh: req.GetMesh(), Viewer: req.GetViewer(), All: req.GetAll()}
	verdicts, err := s.impl.Filter(ctx, query, peersFromProto(req.GetRows()))
	if err != nil {
		return nil, err
	}
	res := &filterv1.FilterResponse{Verdicts: make([]*filterv1.Verdict, len(verdicts))}
	for i, v := range verdicts {
		res.Verdicts[i] = &filterv1.Verdict{Hide: v.Hide, Reason: v.Reason, Annotations: v.Annotations}
	}
	return res, nil
}

func peersFromProto(rows []*filterv1.Peer) []Peer {
	peers := make([]Peer, len(rows))
	for i, p := range rows {
		peers[i] = peerFromProto(p)
	}
	return peers
}

func peerFromProto(p *filterv1.Peer) Peer {
	peer := Peer{
		Mesh:         p.GetMesh(),
		PubKey:       p.GetPubKey(),
		MemberPubKey: p.GetMemberPubKey(),
		DisplayName:  p.GetDisplayName(),
		Status:       p.GetStatus(),
		Summary:      p.GetSummary(),
		SessionID:    p.GetSessionId(),
		ConnectedAt:  wire.Time(p.GetConnectedAtUnixMs()),
		Cwd:          p.GetCwd(),
		Role:         p.GetRole(),
		Hostname:     p.GetHostname(),
		PeerType:     p.GetPeerType(),
		Channel:      p.GetChannel(),
		Model:        p.GetModel(),
		Wire:         p.GetWireJson(),
		Annotations:  p.GetAnnotations(),
	}
	for _, g := range p.GetGroups() {
		peer.Groups = append(peer.Groups, Group{Name: g.GetName(), Role: g.GetRole()})
	}
	if p != nil && p.Visible != nil {
		visible := p.GetVisible()
		peer.Visible = &visible
	}
	return peer
}
