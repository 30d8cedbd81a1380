# For a plugin that is killed often on purpose: quick restarts, no quarantine.
data_dir   = "./data"
plugin_dir = "./bin/plugins"

mesh "team" {
  broker_url      = "ws://127.0.0.1:7900/ws"
  mesh_id         = "your-mesh-id"
  member_id       = "your-member-id"
  secret_key_file = "team.key"
}

outbox "sqlite" {
  restart {
    initial = "50ms"
    max     = "500ms"
    crashes = 0
  }
}

push_handler "inbox" {
  restart {
    initial = "50ms"
    max     = "500ms"
    crashes = 0
  }
}
