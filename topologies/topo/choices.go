package topo

// Values lists the roles that there are.
func (Role) Values() []string {
	return []string{string(RoleControlPlane), string(RoleWorker), string(RoleRouter), string(RoleHost)}
}

// Values lists the types that there are.
func (InterfaceType) Values() []string { return []string{string(Ethernet), string(Dummy)} }

// Values lists the routing modes that there are.
func (RoutingMode) Values() []string { return []string{string(RoutingNative), string(RoutingVXLAN)} }

// Values are the algorithms that there are.
func (Algorithm) Values() []string { return []string{string(Random), string(Maglev)} }

// Values lists the results that there are.
func (Result) Values() []string { return []string{string(ResultLost), string(ResultReplyLost)} }

// choices is a text of which only a few values make sense.
type choices interface{ Values() []string }
