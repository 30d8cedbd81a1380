package host

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/meshhost/meshhost/host/link"
	"github.com/meshhost/meshhost/host/plugin"
)

// statsTimeout bounds what a scrape waits for an outbox.
const statsTimeout = 2 * time.Second

// metrics are what GET /metrics shows. Most are read from the rooms at the
// moment of the scrape.
type metrics struct {
	registry *prometheus.Registry
	dropped  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meshhost_frames_dropped_total", Help: "Frames from a broker that found no room in their queue.",
		}, []string{"mesh", "kind"}),
	}
	m.registry.MustRegister(m.dropped, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch makes the scrapes read h.
func (m *metrics) watch(h *Host) { m.registry.MustRegister(&scrape{h}) }

// scrape reads the rooms.
type scrape struct{ h *Host }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("meshhost_"+name, help, labels, nil)
}

var (
	descMesh      = desc("mesh_connected", "1 while the member connection is up.", "mesh")
	descPlugin    = desc("plugin_ready", "1 while the plugin serves.", "kind", "plugin")
	descStarts    = desc("plugin_starts_total", "Processes started.", "kind", "plugin")
	descCrashes   = desc("plugin_crashes_total", "Processes that ended unasked or failed to start.", "kind", "plugin")
	descRows      = desc("outbox_messages", "Messages in the outbox by state.", "outbox", "state")
	descBytes     = desc("outbox_bytes", "Bytes of the bodies in the outbox.", "outbox")
	descReceived  = desc("pushes_received_total", "Pushes from brokers.")
	descStored    = desc("pushes_stored_total", "Pushes that were new, durable in the journal.")
	descDuplicate = desc("pushes_duplicate_total", "Pushes that were known already.")
	descRefused   = desc("pushes_refused_total", "Pushes left to the broker for want of room.")
	descLost      = desc("pushes_dropped_total", "Pushes lost for want of room; the protocol does not repeat them.")
	descEchoes    = desc("pushes_echoed_total", "Pushes of what the receiving identity had sent itself; acked and not handed on.")
	descUnopened  = desc("pushes_undecryptable_total", "Sealed pushes that no key of this daemon opens.")
	descAsked     = desc("delivery_asks_total", "Questions to the broker whether a message was delivered.", "mesh")
	descLearned   = desc("delivery_learned_total", "Messages that turned out to be delivered.", "mesh")
	descResent    = desc("delivery_resent_total", "Messages that the broker lost after its ack and that went again.", "mesh")
	descForgotten = desc("delivery_unknown_total", "Messages that the broker no longer knows and that did not go again.", "mesh")
	descUnasked   = desc("delivery_waiting", "Accepted messages in memory whose delivery is asked for, 10,000 at most.", "mesh")
	descMore      = desc("delivery_more", "1 while the outbox has further ones, for which memory has no room.", "mesh")
	descQueued    = desc("pushes_queued", "Pushes between their connection and the journal.")
	descJournal   = desc("journal_rows", "Pushes in the journal that some handler still has to take.")
	descJournalB  = desc("journal_bytes", "Bytes of those pushes.")
	descAcked     = desc("pushes_acked_total", "client_acks sent.")
	descDead      = desc("push_dead_letters_total", "Work items that a handler failed too often.")
	descWaiting   = desc("push_waiting", "Work items that wait for a handler.", "handler")
)

// Describe is prometheus.Collector; the collector is unchecked, since what it
// shows depends on mesh.hcl.
func (*scrape) Describe(chan<- *prometheus.Desc) {}

// Collect is prometheus.Collector.
func (s *scrape) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for name, m := range s.h.meshes {
		gauge(descMesh, one(m.broker.Member().State().Phase == link.Ready), name)
	}
	for _, u := range s.h.now().uses {
		st := u.plugin.Status()
		kind := string(st.Kind)
		gauge(descPlugin, one(st.State == plugin.StateReady), kind, st.Name)
		counter(descStarts, int64(st.Starts), kind, st.Name)
		counter(descCrashes, int64(st.Crashes), kind, st.Name)
	}
	for name, st := range s.h.outbound.Ladders() {
		counter(descAsked, st.Asked, name)
		counter(descLearned, st.Delivered, name)
		counter(descResent, st.Resent, name)
		counter(descForgotten, st.Unknown, name)
		gauge(descUnasked, float64(st.Rows), name)
		gauge(descMore, one(st.More), name)
	}
	in := s.h.inbound.Stats()
	counter(descReceived, in.Received)
	counter(descStored, in.Stored)
	counter(descDuplicate, in.Duplicates)
	counter(descRefused, in.Refused)
	counter(descLost, in.Dropped)
	counter(descAcked, in.Acked)
	counter(descDead, in.Dead)
	counter(descEchoes, in.Echoes)
	counter(descUnopened, in.Undecryptable)
	gauge(descQueued, float64(in.Queued))
	gauge(descJournal, float64(in.Journal.Rows))
	gauge(descJournalB, float64(in.Journal.Bytes))
	for name, n := range in.Waiting {
		gauge(descWaiting, float64(n), name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	stats, err := s.h.outbound.Stats(ctx)
	if err != nil {
		s.h.logger.Debug("no numbers of an outbox for this scrape", "error", err)
	}
	for name, st := range stats {
		gauge(descBytes, float64(st.Bytes), name)
		for state, n := range st.States {
			gauge(descRows, float64(n), name, string(state))
		}
	}
}
