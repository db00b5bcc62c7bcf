"""The driver in a cluster: how nodes and controllers find each other, trust each other, and share the work."""
