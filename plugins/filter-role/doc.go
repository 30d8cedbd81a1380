// Command meshhost-filter-role is the peer filter "role": it hides the rows of a
// peer list whose role is in its option hide, and gives the role as the reason.
// Without a configuration it hides the control plane, whose connections serve
// the mesh and read no mail.
//
// The host normalises the role of each row (PROTOCOL 8), so there are three of
// them and none is empty. A verdict depends on the row and the configuration
// alone.
package main
