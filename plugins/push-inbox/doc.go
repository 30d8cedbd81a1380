// Command meshhost-push-inbox stores what the mesh sends to people in a SQLite
// file and brings the feature inbox: list, show, seen, delete, prune.
//
// Handle writes a batch in one transaction and answers after it is on disk. A
// push that shares a dedup key with an earlier one is acked and not stored
// again, even if the earlier one has been deleted since. When max_messages are
// there and none was seen, it answers unavailable and the host keeps what is new
// until there is room. After the commit the
// event inbox.stored tells who follows the list; it may be lost, the messages
// are not.
//
// Other programs may read the file while the plugin runs. Table messages keeps
// these columns: n (order of arrival), id, client_message_id,
// broker_message_id, mesh, kind (direct, broadcast, webhook), sender_pubkey,
// sender_member_pubkey, sender_name, recipient_pubkey, recipient_kind,
// priority, subtype, reply_to_id, body, undecryptable (0 or 1), created_at,
// received_at, seen_at. Times are Unix milliseconds, 0 for unknown or not yet.
// body is TEXT where it is UTF-8, else a BLOB; it is empty and undecryptable is
// 1 where no key of ours opens the push.
package main
