# Two meshes with an outbox each: the second one keeps nothing over a restart.
data_dir   = "./data"
plugin_dir = "./bin/plugins"

mesh "work" {
  broker_url      = "wss://broker.example.org/ws"
  mesh_id         = "your-mesh-id"
  member_id       = "your-member-id"
  secret_key_file = "team.key"
  display_name    = hostname()
  outbox          = "sqlite"
}

mesh "lab" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = "another-mesh-id"
  member_id       = "another-member-id"
  secret_key_file = "team.key"
  outbox          = "scratch"
}

outbox "sqlite" {}

outbox "memory" {
  name = "scratch"
}

push_handler "inbox" {}

peer_filter "role" {}

rpc_feature "state" {}

rpc_feature "peers" {}
