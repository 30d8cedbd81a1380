package wire

// Frame types that this project speaks by name (PROTOCOL 2 to 7). A feature may use any other.
const (
	TypeHello        = "hello"
	TypeSessionHello = "session_hello"
	TypeHelloAck     = "hello_ack"
	TypeError        = "error"

	TypeSend      = "send"
	TypeAck       = "ack"
	TypePush      = "push"
	TypeInbound   = "inbound" // alias of push (PROTOCOL 5.1)
	TypeClientAck = "client_ack"

	TypeListPeers           = "list_peers"
	TypePeersList           = "peers_list"
	TypeGetState            = "get_state"
	TypeSetState            = "set_state"
	TypeStateResult         = "state_result"
	TypeListState           = "list_state"
	TypeStateList           = "state_list"
	TypeStateChange         = "state_change"
	TypeMessageStatus       = "message_status"
	TypeMessageStatusResult = "message_status_result"
	TypeMeshInfoResult      = "mesh_info_result"

	TypeSetStatus  = "set_status"
	TypeSetSummary = "set_summary"
	TypeSetVisible = "set_visible"
	TypeSetProfile = "set_profile"
	TypeSetStats   = "set_stats"
	TypeJoinGroup  = "join_group"
	TypeLeaveGroup = "leave_group"

	TypeStreamData      = "stream_data"
	TypeMCPCallForward  = "mcp_call_forward"
	TypePeerFileForward = "peer_file_request_forward"
	TypePeerDirForward  = "peer_dir_request_forward"
)

// Priorities of a message (PROTOCOL 4.1).
const (
	PriorityNow  = "now"
	PriorityNext = "next"
	PriorityLow  = "low"
)

// Statuses of a presence (PROTOCOL 7.1).
const (
	StatusIdle    = "idle"
	StatusWorking = "working"
	StatusDND     = "dnd"
)
