"""The status address of a node: what it says of itself by HTTP, to people and to what watches over it."""
