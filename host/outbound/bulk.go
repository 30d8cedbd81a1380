package outbound

import (
	"context"
	"slices"
	"time"

	"github.com/meshhost/meshhost/sdk"
)

// lookupBatch bounds one Lookup of many keys.
const lookupBatch = 256

// Result is the outcome of one of several requests, as Accept tells it.
type Result struct {
	Reply Reply
	Err   error
}

// Accepting are requests on their way to the outbox.
type Accepting struct {
	o       *Outbound
	ctx     context.Context
	cancel  context.CancelFunc
	results []Result
	loads   []*load
}

// load are those of the requests that go to one mesh.
type load struct {
	a     *attached
	box   *box
	leave func() // of the box; nil: it could not be entered
	items []*item
	crowd *crowd
}

// item is one of several requests.
type item struct {
	req    *Request
	at     int // its place among all of them
	fp     [32]byte
	own    bool // its sender chose the client_message_id
	target Target
	entry  *sdk.Entry
}

// AcceptMany is Accept for several requests, with as few crossings to the outbox
// as there can be. It returns when those that can be are on their way there, in
// the order of reqs within each mesh, so that the caller can prepare others
// meanwhile; Wait must follow. The same client_message_id twice in reqs is one
// message and a replay of it.
func (o *Outbound) AcceptMany(ctx context.Context, reqs []Request) *Accepting {
	p := &Accepting{o: o, results: make([]Result, len(reqs))}
	p.ctx, p.cancel = context.WithTimeout(ctx, storeTimeout)
	items := make([]item, len(reqs))
	for i := range reqs {
		items[i] = item{req: &reqs[i], at: i, own: reqs[i].ClientMessageID != ""}
		if err := p.sort(&items[i]); err != nil {
			p.results[i].Err = err
		}
	}
	for _, l := range p.loads {
		p.prepare(l)
	}
	return p
}

// sort checks a request and puts it to the others of its mesh.
func (p *Accepting) sort(it *item) error {
	a, err := p.o.mesh(it.req.Mesh)
	if err != nil {
		return err
	}
	if err := check(it.req); err != nil {
		return err
	}
	if it.fp, err = fingerprint(it.req); err != nil {
		return err
	}
	for _, l := range p.loads {
		if l.a == a {
			l.items = append(l.items, it)
			return nil
		}
	}
	p.loads = append(p.loads, &load{a: a, items: []*item{it}})
	return nil
}

// prepare resolves and seals the messages of a mesh and hands them over. Whether
// a client_message_id is known the backend says with the append; only for what
// can't be appended is it asked, and outboxes that the mesh had before.
func (p *Accepting) prepare(l *load) {
	received := time.Now()
	var err error
	if l.box, l.leave, err = l.a.enter(p.ctx); err != nil {
		p.refuse(l.items, err)
		l.items, l.leave = nil, nil
		return
	}
	for _, b := range l.a.earlier() {
		l.items = p.replays(l, b, l.items)
	}
	type resolution struct {
		target Target
		err    error
	}
	targets := map[string]resolution{}
	entries := make([]*sdk.Entry, 0, len(l.items))
	var going, stuck []*item
	for _, it := range l.items {
		r, ok := targets[it.req.To]
		if !ok {
			r.target, r.err = p.o.resolve(p.ctx, l.a, it.req.To)
			targets[it.req.To] = r
		}
		it.target, err = r.target, r.err
		if err == nil {
			it.entry, err = p.o.entry(l.a, it.req, it.fp, r.target)
		}
		if err != nil {
			p.results[it.at].Err = err
			stuck = append(stuck, it)
			continue
		}
		l.a.trail.begin(it.entry.ID, it.entry.ClientMessageID, arrival(received, it.req, &it.target)...)
		going, entries = append(going, it), append(entries, it.entry)
	}
	l.items, l.crowd = going, l.box.committer.appendAll(entries)
	p.replays(l, l.box, stuck)
}

func (p *Accepting) refuse(items []*item, err error) {
	for _, it := range items {
		p.results[it.at].Err = err
	}
}

// Wait returns the outcomes in the order of the requests.
func (p *Accepting) Wait() []Result {
	defer p.cancel()
	for _, l := range p.loads {
		if l.leave != nil {
			p.settle(l)
			l.leave()
		}
	}
	return p.results
}

// settle takes the outcomes of a mesh's messages.
func (p *Accepting) settle(l *load) {
	var again []*item
	durable := l.box.Durable()
	for i, r := range l.crowd.wait(p.ctx) {
		it := l.items[i]
		e, out := it.entry, &p.results[it.at]
		if !kept(e, r.res, r.err) {
			l.a.trail.drop(e.ID)
		}
		switch {
		case r.err != nil:
			*out = Result{Reply{ID: e.ID, ClientMessageID: e.ClientMessageID}, r.err}
			continue
		case r.res.Code == sdk.OpStored:
			out.Reply = Reply{ID: e.ID, ClientMessageID: e.ClientMessageID, Status: "queued", Durable: durable}
		case r.res.Code == sdk.OpExists && r.res.ID == e.ID: // our own, repeated after an answer got lost
			out.Reply = Reply{ID: e.ID, ClientMessageID: e.ClientMessageID, Status: p.o.status(l.a, e.ID, r.res.State), Durable: durable}
		default:
			out.Err = refusal(r.res)
			again = append(again, it)
			continue
		}
		out.Reply.Target, out.Reply.Name, out.Reply.From = it.target.Spec, it.target.Name, it.target.From
	}
	p.replays(l, l.box, again)
}

// replays answers those of the requests whose client_message_id an outbox knows,
// and returns the others.
func (p *Accepting) replays(l *load, b *box, items []*item) (others []*item) {
	var asked []*item
	for _, it := range items {
		if it.own {
			asked = append(asked, it)
		} else {
			others = append(others, it)
		}
	}
	for len(asked) > 0 {
		n := min(len(asked), lookupBatch)
		keys := make([]sdk.MessageKey, n)
		for i, it := range asked[:n] {
			keys[i] = sdk.MessageKey{Mesh: l.a.Name, Sender: MemberSender, ClientMessageID: it.req.ClientMessageID}
		}
		found, err := b.Outbox.Lookup(p.ctx, keys)
		for i, it := range asked[:n] {
			out := &p.results[it.at]
			switch {
			case err != nil:
				*out = Result{Err: unstored("outbox_unavailable", "the outbox can't say whether the message is there already", err)}
			case found[i] != nil:
				out.Reply, out.Err = p.o.replayed(l.a, b, found[i], string(found[i].Fingerprint) == string(it.fp[:]))
			default:
				others = append(others, it)
			}
		}
		asked = asked[n:]
	}
	// Those that go on go in their order.
	slices.SortFunc(others, func(x, y *item) int { return x.at - y.at })
	return others
}
