"""One node of a cluster: what joins the core, the wire, the storage and the reactor."""
