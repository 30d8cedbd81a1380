// Command meshhost-feature-peers is the feature "peers": how this member is seen
// by others: summary, status, visibility, profile and groups (PROTOCOL 7.1).
//
// The broker forgets all of it with the connection. So the plugin keeps nothing
// itself: the host records these frames as what is desired and tells it to every
// new presence. While a mesh is not connected a change is recorded and told
// later.
package main
