data_dir   = "data"
plugin_dir = "plugins"

mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = "mesh-1"
  member_id       = "member-1"
  secret_key_file = "team.key"
  display_name    = ["build", "box"]
}

outbox "sqlite" {}

push_handler "inbox" {}
