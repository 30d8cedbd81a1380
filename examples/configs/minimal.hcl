# The least that works: one mesh, a durable outbox, an inbox.
data_dir   = "./data"
plugin_dir = "./bin/plugins"

mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = "your-mesh-id"
  member_id       = "your-member-id"
  secret_key_file = "team.key"
}

outbox "sqlite" {}

push_handler "inbox" {}
